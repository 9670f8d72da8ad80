// Package statuspage is the page that shows what badgerelay.v1.AdminService says of
// a relay, and the same as JSON; the judgement is added here. It needs nothing from
// outside, no script either.
//
// Everybody who reaches the ops listener sees health: what the metrics beside
// it tell anyway. Who holds a key, which the admin listener gives out, sees
// organizations and the words of errors too.
//
// It shows what is now, and counts since the start. What was before, how long
// counts took, and what APNs answered how often is for Prometheus to keep.
package statuspage
