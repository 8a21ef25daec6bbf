-- Books up to ARGV[1] instants that are free in every limit, or says which limit forbids the first one.
-- KEYS: one key a limit, holding its next free instant in microseconds of this server's clock.
-- ARGV: n, horizon in us, wait of a forgotten limit in us, lead in us, then the interval of each limit in us.
-- Gives {now, '', instants in us...} or {now, key of the limit, first free instant in us}. The arithmetic is that of domain/pacing.py.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local n, horizon, forgotten, lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local free, interval = {}, {}
for i, key in ipairs(KEYS) do
  interval[i] = tonumber(ARGV[4 + i])
  local known = redis.call('GET', key)
  if known then
    free[i] = tonumber(known)
  else
    free[i] = now + math.max(forgotten, interval[i])
  end
end
local instants = {}
for _ = 1, n do
  local at = now + lead
  for i = 1, #KEYS do at = math.max(at, free[i]) end
  if at > now + horizon then break end
  instants[#instants + 1] = string.format('%d', at)
  for i = 1, #KEYS do free[i] = at + interval[i] end
end
for i, key in ipairs(KEYS) do
  -- kept an hour longer than it matters: a limit that is forgotten costs its first second
  local ttl = math.max(0, free[i] - now) / 1000 + interval[i] / 1000 + 3600000
  redis.call('SET', key, string.format('%d', free[i]), 'PX', string.format('%d', ttl))
end
if #instants > 0 then
  return {string.format('%d', now), '', unpack(instants)}
end
local last = 1
for i = 2, #KEYS do if free[i] > free[last] then last = i end end
return {string.format('%d', now), KEYS[last], string.format('%d', free[last])}
