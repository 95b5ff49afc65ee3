# MLflow's server with boto3, which its own image lacks; from the lock of make run STACK=full.
ARG PYTHON=3.13.7-slim-bookworm
FROM python:${PYTHON}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
COPY deploy/mlflow/requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock && rm /tmp/requirements.lock
RUN groupadd --gid 10001 mlflow \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/mlflow --no-create-home --shell /usr/sbin/nologin mlflow \
    && install -d -m 750 -o mlflow -g mlflow /var/lib/mlflow
USER 10001:10001
WORKDIR /var/lib/mlflow
ENTRYPOINT ["mlflow"]
CMD ["server", "--help"]
