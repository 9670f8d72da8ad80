# The relay's image of a release, which `make images` makes for every architecture
# of programs that are built: one static program, no shell, nobody's user, nothing
# to write to but /tmp and the volumes. ../Dockerfile makes the same from source.
FROM scratch
ARG TARGETARCH
COPY linux_${TARGETARCH}/ /
COPY --chown=65532:65532 own/lib/ /var/lib/
COPY --chown=65532:65532 own/run/ /run/
ENV PATH=/usr/bin
USER 65532:65532
# Agents; their metadata document; /metrics, health and the status page.
EXPOSE 8443 8444 9464
# The registry, and the admin socket, both of the relay's user. In the second
# nothing needs to be kept.
VOLUME ["/var/lib/badgerelay", "/run/badgerelay"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/badgerelay"]
CMD ["serve", "--config", "/etc/badgerelay/badgerelay.yaml"]
