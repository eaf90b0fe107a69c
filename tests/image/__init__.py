"""The container image, built and started for real: `make image-test`.

Needs Linux, root, and Debian's buildah, debootstrap and runc; `make test` leaves it out.
"""
