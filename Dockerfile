# One image for every process; docker-compose.yml says which is which.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/dispatcher
COPY requirements-run.lock .
RUN /opt/dispatcher/bin/pip install --no-cache-dir --require-hashes -r requirements-run.lock
COPY pyproject.toml README.md ./
COPY config config
COPY dispatcher dispatcher
COPY tasks tasks
COPY examples examples
RUN /opt/dispatcher/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home dispatcher \
    && install -d -o dispatcher -g dispatcher /spool
COPY --from=build /opt/dispatcher /opt/dispatcher
COPY config/flower.py /etc/dispatcher/flower.py
ENV PATH=/opt/dispatcher/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DISPATCHER_DATA=/tmp/dispatcher \
    DISPATCHER_ALIVE=/tmp/alive \
    DISPATCHER_SPOOL=/spool
USER dispatcher
WORKDIR /spool
VOLUME /spool
