# The images of the lab: the servers, the clients (and the nodes that `socklab play --on docker` makes), the conductor.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS services
WORKDIR /lab
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY services/ services/
COPY clients/health.py clients/
USER nobody

FROM ${PYTHON_IMAGE} AS network
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables iproute2 && rm -rf /var/lib/apt/lists/*

# It sets rules of its own network with nft, so it is root there; compose takes from that root all rights but NET_ADMIN and NET_RAW.
# Neither a user with capabilities of files nor ambient ones would do: no-new-privileges forbids the first, Docker gives no others.
FROM network AS client
WORKDIR /lab
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY clients/ clients/
COPY socklab/backends/node.py node.py
COPY socklab/__init__.py socklab/
COPY socklab/inside/ socklab/inside/
CMD ["python", "-I", "-S", "node.py", "clients/agent.py"]

# The project itself is mounted at /lab, and whoever owns it there is who the conductor becomes, so that runs/ is theirs.
FROM ${PYTHON_IMAGE} AS conductor
RUN pip install --quiet --no-cache-dir 'pyyaml>=6.0.2' 'rich>=14' 'starlette>=1.0' 'uvicorn>=0.40' 'httptools>=0.6'
WORKDIR /lab
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["sh", "-c", "exec setpriv --reuid=$(stat -c %u /lab) --regid=$(stat -c %g /lab) --clear-groups --bounding-set=-all python -m socklab \"$@\"", "socklab"]
CMD ["conduct"]
