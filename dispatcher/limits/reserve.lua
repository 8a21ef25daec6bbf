-- Books up to ARGV[1] instants that are free in every limit, or says which limit forbids the first one (GCRA).
-- KEYS: the key that says which run of the server remembers, and since when; then one key a limit, holding its next
-- free instant in microseconds of this server's clock.
-- ARGV: n, horizon, first booking after a loss of memory, lead, longest gap, then the interval of each limit; all in us.
-- Gives {now, since, '', instants in us...} or {now, since, key of the limit, its free instant}; the instants are in us.
-- The arithmetic is that of domain/pacing.py.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local n, horizon, loss, lead = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gap = tonumber(ARGV[5])
-- Read here and not by the client: no answer of one server can then be taken for that of the next.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run then return redis.error_reply('this server does not say its run_id') end
local wrote, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%x+) (%d+)$')
since = tonumber(since)
if wrote ~= run then
  since = now
  redis.call('SET', KEYS[1], string.format('%s %d', run, now))
end
local limits, free, interval = #KEYS - 1, {}, {}
for i = 1, limits do
  interval[i] = tonumber(ARGV[5 + i])
  free[i] = math.max(tonumber(redis.call('GET', KEYS[1 + i]) or now), since + loss + interval[i])
end
local last = 1
for i = 2, limits do if free[i] > free[last] then last = i end end
-- the first limit is the one that is shared by most: it does not wait for another one
if limits > 0 and free[last] > math.max(now + lead, free[1]) + gap then n = 0 end
local instants = {}
for _ = 1, n do
  local at = now + lead
  for i = 1, limits do at = math.max(at, free[i]) end
  if at > now + horizon then break end
  instants[#instants + 1] = string.format('%d', at)
  for i = 1, limits do free[i] = at + interval[i] end
end
if #instants > 0 then
  for i = 1, limits do
    -- no word of a limit means that nothing of it is out: an hour more than that takes
    local ttl = (free[i] - now + interval[i]) / 1000 + 3600000
    redis.call('SET', KEYS[1 + i], string.format('%d', free[i]), 'PX', string.format('%d', ttl))
  end
  return {string.format('%d', now), string.format('%d', since), '', unpack(instants)}
end
local at = string.format('%d', free[last] or now)
return {string.format('%d', now), string.format('%d', since), KEYS[1 + last] or '', at}
