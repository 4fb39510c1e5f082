# The watcher and the API: loradrop without vLLM.
FROM python:3.12-slim

COPY . /opt/loradrop
RUN pip install --no-cache-dir /opt/loradrop && useradd --create-home loradrop

USER loradrop
WORKDIR /home/loradrop
ENTRYPOINT ["loradrop"]
