# The README's two steps in an image: the environment, then the demo with its trained model.
#
#   docker build --target environment -t a2d_d2 .   # make venv alone
#   docker build -t a2d_d2:demo .                   # make demo as well; it trains on the CPU
#   docker build --build-arg DEMO_ARGS=--miniature -t a2d_d2:demo .     # in a few minutes
#   docker run --rm -it -v "$PWD/output:/a2d_d2/output" a2d_d2:demo
#
# No GPU is needed. PyPI's torch for Linux brings its own CUDA libraries, so that with the NVIDIA
# container toolkit `docker run --gpus all` is enough. Another base needs Python 3.10 or newer, pip
# and make:
#
#   docker build --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 \
#       --build-arg PACKAGES="make python3 python3-pip python3-venv" .

ARG BASE=python:3.12-slim
FROM ${BASE} AS environment
ARG PACKAGES=make
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /a2d_d2
COPY . .
RUN make venv
ENV PATH=/a2d_d2/.venv/bin:${PATH}
CMD ["bash"]

FROM environment
ARG DEMO_ARGS
RUN make demo
