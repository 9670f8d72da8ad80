// Package serve is badgeagent serve: the daemon with its listeners, its log, its
// metrics, and what systemd is told.
//
// It makes the daemon's sources from the configuration, mounts what takes
// requests on the local listener, and reloads secrets. What becomes of counts
// is package daemon's.
package serve
