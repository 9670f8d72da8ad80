# The agent's image of a release, which `make images` makes as it makes the relay's.
#
#   chown -R root:65532 etc && chmod 0750 etc && chmod 0640 etc/*
#   agent="docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -v ./etc:/etc/badgeagent:ro -v badgeagent:/var/lib/badgeagent badgeagent:1.2.3"
#   $agent cert ensure --domain fabrikam.com
#
# and so on with auth-server set, proxy enable and probe; without a command it is
# the daemon. OAuthCert.cer, for the relay's operator, is on the volume; etc holds
# badgeagent.yaml and the secrets that it names.
FROM scratch
ARG TARGETARCH
COPY linux_${TARGETARCH}/ /
COPY --chown=65532:65532 own/lib/ /var/lib/
COPY --chown=65532:65532 own/run/ /run/
ENV PATH=/usr/bin
USER 65532:65532
# The local listener, for mail servers and back ends; /metrics and health; the
# organization's metadata document.
EXPOSE 9466 9465 9467
# Keys and settings, and the local socket. In the second nothing needs to be kept.
VOLUME ["/var/lib/badgeagent", "/run/badgeagent"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/badgeagent"]
CMD ["serve", "--config", "/etc/badgeagent/badgeagent.yaml"]
