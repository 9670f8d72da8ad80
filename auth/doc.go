// Package auth proves who an agent is. It issues and validates the
// server-to-server tokens of MS-XOAUTH (the app-only actor token).
//
// On the relay's side a [Validator] takes a bearer token apart itself, byte by
// byte and before anything else looks at it, finds the key by the x5t of the
// header through [Keys], and lets go-jose verify the signature. The tenant of
// a request is the organization of the key that verified its token and nothing
// else: what the token says about realms must agree with it.
//
// Real producers differ, and what is unambiguous is taken: x5t in base64url or
// base64, with one padding character or none, times as numbers or strings. A
// token without nbf is refused, though RFC 7519 leaves it optional: nothing
// would bound how long it counts.
//
// On the agent's side an [Issuer] signs tokens.
//
// Beside it are the other rooms of who an agent is: package certs has the
// certificates and their roll-over, authmetadata the documents in which keys
// and audiences are published, audience the names in a token, and authgrpc the
// interceptors of gRPC, of which nothing here knows.
//
// The package builds no certificate chains: a registered certificate is
// pinned, and its issuer, extensions and signature algorithm mean nothing
// here. It accepts no user tokens, talks to no token service, stores no
// credentials of organizations, ends no streams when a credential goes, and
// never logs a token.
package auth
