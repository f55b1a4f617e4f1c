# One image for every process: api (the default), console, worker, migrations. See docker-compose.yml for how they are run.
FROM python:3.11-slim-bookworm AS build
ENV PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY requirements-traces.lock ./
# The lock names every package with its hash, so pip need not look for more. Without a pip of its own the
# environment is half the files and nothing in the image can install anything.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
        -r requirements-traces.lock \
    && find /opt/venv -name '*.po' -delete
ENV PATH=/opt/venv/bin:$PATH
COPY . .
# The secret is for this one command, which signs nothing with it. The image never has its files changed, so
# bytecode need not be checked against them.
RUN QUIKTRADE_SECRET_KEY=only-to-collect-static-files QUIKTRADE_STATIC_ROOT=/app/staticfiles \
        python manage.py collectstatic --no-input \
    && python -m compileall -q --invalidation-mode unchecked-hash /app/manage.py /app/quiktrade /app/orders /app/exchanges

FROM python:3.11-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    QUIKTRADE_DATA=/data \
    QUIKTRADE_LOG_FORMAT=json \
    QUIKTRADE_STATIC_ROOT=/app/staticfiles
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# A volume mounted here for the first time takes this owner over.
RUN install -d -m 700 -o 10001 -g 10001 /data
USER 10001:10001
EXPOSE 8000
# /healthz asks nothing of the database: a process is not restarted because the database is.
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["gunicorn", "--config", "quiktrade/web/gunicorn.py", "--bind", "0.0.0.0:8000"]
