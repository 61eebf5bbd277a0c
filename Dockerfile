# The README's two commands in an image: make demo, whose trained model and page it keeps, then
# make test.
#
#   docker build -t a2d_d2 .                 # no image comes of it if a test fails
#   docker build --target demo -t a2d_d2 .   # make demo alone; it trains on the CPU
#   docker build --target demo --build-arg DEMO_ARGS=--miniature -t a2d_d2 .   # in a few minutes
#   docker run --rm -it -v "$PWD/output:/a2d_d2/output" a2d_d2
#
# No GPU is needed. PyPI's torch for Linux brings its own CUDA libraries, so that with the NVIDIA
# container toolkit `docker run --gpus all` is enough. Another base needs Python 3.10 or newer, pip
# and make, and git for the tests:
#
#   docker build --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 \
#       --build-arg PACKAGES="git make python3 python3-pip python3-venv" .

ARG BASE=python:3.12-slim
FROM ${BASE} AS demo
ARG PACKAGES="git make"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /a2d_d2
COPY . .
ARG DEMO_ARGS
RUN make demo
ENV PATH=/a2d_d2/.venv/bin:${PATH}
CMD ["bash"]

FROM demo
RUN make test
