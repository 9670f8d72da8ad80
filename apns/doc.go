// Package apns pushes badges to Apple's Push Notification service.
//
// A Pool serves one app (one topic, one environment, one credential). It asks
// its Source for work whenever a connection has a stream free, so that the
// count of a push is fixed as late as can be and the newest always goes out.
// Every Request taken comes back in exactly one Result. What a refusal means
// is decided by one table (Verdict), with Apple's document behind each line.
//
// Two engines carry the pushes behind one unexported contract (conn) and pass
// one conformance suite. EngineNative, the default, writes HTTP/2 frames by
// hand: one writer and one reader per connection, many pushes in one TLS
// write, no goroutine and no allocation per push. EngineReference is
// github.com/sideshow/apns2, to compare with and to fall back to.
//
// Sources: Apple's "Sending notification requests to APNs", "Handling
// notification responses from APNs", "Establishing a token-based connection to
// APNs" (all read 2026-11); RFC 9113 (HTTP/2), RFC 7541 (HPACK).
//
// The package knows no mailbox and no organization, keeps no queue, and does
// not retry: what has to be sent again is its caller's to decide.
package apns
