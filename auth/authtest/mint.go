package authtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
)

// Sign makes a compact JWS with RS256 of header and payload as they are,
// right or wrong.
func Sign(key *rsa.PrivateKey, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err) // the key is ours
	}
	return signed + "." + encode(string(signature))
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Header returns the usual header of the key's tokens.
func Header(key *Key) string {
	return fmt.Sprintf(`{"typ":"JWT","alg":"RS256","x5t":"%s"}`, x5t(key))
}

func x5t(key *Key) string { return certs.FormatX5T(certs.X5T(key.Certificate)) }

// inBase64 writes base64url with the other two characters of base64.
func inBase64(text string) string { return strings.NewReplacer("-", "+", "_", "/").Replace(text) }

// Claims returns the usual claims of realm, valid for eight hours from now,
// with more members behind them.
func Claims(realm string, now time.Time, more string) string {
	return claims(realm, fmt.Sprintf(`"nbf":%d,"exp":%d%s`, now.Unix(), now.Add(8*time.Hour).Unix(), more))
}

// claims returns the parties' claims of realm and then rest.
func claims(realm, rest string) string {
	return fmt.Sprintf(`{"aud":"%s/%s@%s","iss":"%s@%s","nameid":"%s@%s",%s}`,
		Principal, Authority, realm, auth.PrincipalExchange, realm, auth.PrincipalExchange, realm, rest)
}

// Good returns a plain good token.
func Good(key *Key, realm string, now time.Time) string {
	return Sign(key.Private, Header(key), Claims(realm, now, ""))
}

// Token is a named token and the reason for which it must be refused; a good
// one has none.
type Token struct {
	Name   string
	Token  string
	Reason auth.Reason
}

// Producers returns a good token for each way in which real producers differ.
func Producers(key *Key, realm string, now time.Time) []Token {
	nbf, exp := now.Unix(), now.Add(8*time.Hour).Unix()
	usual := Header(key)
	times := func(format string) string { return claims(realm, fmt.Sprintf(format, nbf, exp)) }
	span := func(from, to time.Duration) string {
		return claims(realm, fmt.Sprintf(`"nbf":%d,"exp":%d`, now.Add(from).Unix(), now.Add(to).Unix()))
	}
	const other = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
	list := []struct{ name, header, payload string }{
		{"numbers", usual, times(`"nbf":%d,"exp":%d`)},
		{"strings", usual, times(`"nbf":"%d","exp":"%d"`)},
		{"floats", usual, times(`"nbf":%d.0,"exp":%d.7312345`)},
		{"float and string", usual, times(`"nbf":%d.25,"exp":"%d"`)},
		{"x5t padded", fmt.Sprintf(`{"typ":"JWT","alg":"RS256","x5t":"%s="}`, x5t(key)), Claims(realm, now, "")},
		{"x5t in base64", fmt.Sprintf(`{"typ":"JWT","alg":"RS256","x5t":"%s","x5t#S256":"%s"}`, inBase64(x5t(key)), inBase64(s256(key))+"="), Claims(realm, now, "")},
		{"header order", fmt.Sprintf(`{"x5t":"%s","alg":"RS256","typ":"JWT"}`, x5t(key)), Claims(realm, now, "")},
		{"header white space", fmt.Sprintf(" {\r\n\t\"alg\" : \"RS256\", \"typ\":\"JWT\",\"x5t\":\"%s\"}\n", x5t(key)), Claims(realm, now, "")},
		{"kid", fmt.Sprintf(`{"typ":"JWT","alg":"RS256","kid":"../../etc/passwd","x5t":"%s"}`, x5t(key)), Claims(realm, now, "")},
		{"x5t#S256", fmt.Sprintf(`{"typ":"JWT","alg":"RS256","x5t":"%s","x5t#S256":"%s"}`, x5t(key), s256(key)), Claims(realm, now, "")},
		{"x5t#S256 padded", fmt.Sprintf(`{"typ":"JWT","alg":"RS256","x5t":"%s","x5t#S256":"%s="}`, x5t(key), s256(key)), Claims(realm, now, "")},
		{"claim order", usual, fmt.Sprintf(`{"exp":%d,"nameid":"%s@%s","nbf":%d,"iss":"%s@%s","aud":"%s/%s@%s"}`,
			exp, auth.PrincipalExchange, realm, nbf, auth.PrincipalExchange, realm, Principal, Authority, realm)},
		{"trustedfordelegation string", usual, Claims(realm, now, `,"trustedfordelegation":"true"`)},
		{"trustedfordelegation bool", usual, Claims(realm, now, `,"trustedfordelegation":true`)},
		{"extra claims", usual, Claims(realm, now, `,"iat":1,"jti":"x","sub":"s","oid":"o","identityprovider":"p","new":{"a":[{"b":null}]}`)},
		{"iss GUID is not nameid's", usual, fmt.Sprintf(`{"aud":"%s/%s@%s","iss":"%s@%s","nameid":"%s@%s","nbf":%d,"exp":%d}`,
			Principal, Authority, realm, other, realm, auth.PrincipalExchange, realm, nbf, exp)},
		{"case of GUIDs, host and realm", usual, fmt.Sprintf(`{"aud":"%s/%s@%s","iss":"%s@%s","nameid":"%s@%s","nbf":%d,"exp":%d}`,
			upper(Principal), upper(Authority), upper(realm), upper(auth.PrincipalExchange), upper(realm), upper(other), realm, nbf, exp)},
		{"nbf 12 hours past", usual, span(-12*time.Hour, 12*time.Hour)},
		{"span of 25 hours", usual, span(-12*time.Hour, 13*time.Hour)},
		{"expired by the skew", usual, span(-time.Hour, -300*time.Second)},
		{"nbf ahead by the skew", usual, span(300*time.Second, time.Hour)},
	}
	tokens := make([]Token, len(list))
	for i, t := range list {
		tokens[i] = Token{Name: t.name, Token: Sign(key.Private, t.header, t.payload)}
	}
	return tokens
}

func s256(key *Key) string {
	sum := sha256.Sum256(key.Certificate.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
