# A worker: loradrop beside vLLM and CUDA.
ARG VLLM_VERSION=v0.32.0
FROM vllm/vllm-openai:${VLLM_VERSION}

COPY . /opt/loradrop
RUN uv pip install --system --no-cache /opt/loradrop

ENTRYPOINT ["loradrop", "serve"]
