package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
)

// Hostile returns tokens that a validator, which knows key as realm's good
// credential and nothing else, must refuse, each with its reason. Wherever the
// attack allows it, the token is signed properly with key.
func Hostile(key *Key, realm string, now time.Time) []Token {
	m := minter{key, realm, now}
	var all []Token
	for _, group := range [][]Token{m.form(), m.kinds(), m.algorithms(), m.headers(), m.claims(), m.times(), m.realms(), m.signatures()} {
		all = append(all, group...)
	}
	return all
}

type minter struct {
	key   *Key
	realm string
	now   time.Time
}

// signed signs header and payload; an empty one is the usual.
func (m minter) signed(name string, reason auth.Reason, header, payload string) Token {
	if header == "" {
		header = Header(m.key)
	}
	if payload == "" {
		payload = Claims(m.realm, m.now, "")
	}
	return Token{name, Sign(m.key.Private, header, payload), reason}
}

// header returns the usual header with more members behind it.
func (m minter) header(more string) string {
	return strings.TrimSuffix(Header(m.key), "}") + more + "}"
}

// form breaks the outer form and the JSON.
func (m minter) form() []Token {
	good := Good(m.key, m.realm, m.now)
	parts := strings.Split(good, ".")
	h, p, s := parts[0], parts[1], parts[2]
	const bad = auth.ReasonMalformed
	more := func(members string) string { return Claims(m.realm, m.now, members) }
	return []Token{
		{"empty", "", bad},
		{"no dots", h + p + s, bad},
		{"one dot", h + "." + p, bad},
		{"three dots", good + ".x", bad},
		{"five parts", good + "." + h + "." + p, bad},
		{"only dots", strings.Repeat(".", 4096), bad},
		{"empty parts", "..", bad},
		{"space before", " " + good, bad},
		{"newline behind", good + "\n", bad},
		{"CR LF in the signature", h + "." + p + "." + s[:10] + "\r\n" + s[10:], bad},
		{"LF in the header", h[:4] + "\n" + h[4:] + "." + p + "." + s, bad},
		{"CR in the payload", h + "." + p[:4] + "\r" + p[4:] + "." + s, bad},
		{"standard alphabet", h + "." + p + "." + "+/" + s[2:], bad},
		{"padding inside", h + "=." + p + "." + s, bad},
		{"padded signature", good + "==", bad},
		{"trailing bits in the signature", h + "." + p + "." + twistLast(s), bad},
		{"trailing bits in the header", twistLast(encode(padTo(Header(m.key), 1))) + "." + p + "." + s, bad},
		{"length that base64 can't have", h + "." + p + "." + "AAAAA", bad},
		{"over 8 KiB", good + strings.Repeat("A", auth.MaxTokenSize), auth.ReasonTooLarge},
		m.signed("header over 1 KiB", auth.ReasonTooLarge, m.header(`,"kid":"`+strings.Repeat("k", 1024)+`"`), ""),
		m.signed("payload over 4 KiB", auth.ReasonTooLarge, "", more(`,"x":"`+strings.Repeat("x", 4096)+`"`)),
		m.signed("duplicate claim", bad, "", more(fmt.Sprintf(`,"exp":%d`, m.now.Add(time.Hour).Unix()))),
		m.signed("duplicate claim by escape", bad, "", more(`,"\u0065xp":1`)),
		m.signed("duplicate header", bad, m.header(`,"alg":"RS256"`), ""),
		m.signed("duplicate below", bad, "", more(`,"x":{"a":1,"a":2}`)),
		m.signed("case-twisted claim", bad, "", more(`,"Exp":1`)),
		m.signed("case-twisted nameid", bad, "", more(`,"NAMEID":"x"`)),
		m.signed("case-twisted header", bad, m.header(`,"Alg":"none"`), ""),
		m.signed("case-twisted forbidden header", bad, m.header(`,"JWK":{}`), ""),
		m.signed("case-twisted by Unicode", bad, "", more(`,"i\u017fs":"x"`)),
		m.signed("case-twisted appctx", bad, "", more(`,"AppCtx":"x"`)),
		m.signed("nested five deep", bad, "", more(`,"x":[[[[1]]]]`)),
		m.signed("nested deep", bad, "", more(`,"x":`+strings.Repeat("[", 1500)+strings.Repeat("]", 1500))),
		m.signed("invalid UTF-8", bad, "", more(",\"x\":\"\xff\"")),
		m.signed("invalid UTF-8 in a name", bad, "", more(",\"x\xc0\xaf\":1")),
		m.signed("half a surrogate pair", bad, "", more(`,"x":"\ud800"`)),
		m.signed("two first halves of a pair", bad, "", more(`,"x":"\ud800\ud800"`)),
		m.signed("trailing data", bad, "", more("")+"{}"),
		m.signed("trailing NUL", bad, "", more("")+"\x00"),
		m.signed("byte order mark", bad, "", "\ufeff"+more("")),
		m.signed("header trailing data", bad, Header(m.key)+"x", ""),
		m.signed("payload is an array", bad, "", "["+more("")+"]"),
		m.signed("payload is not JSON", bad, "", "hello"),
		m.signed("literal NaN", bad, "", claims(m.realm, `"nbf":NaN,"exp":1`)),
		m.signed("literal Infinity", bad, "", claims(m.realm, `"nbf":1,"exp":Infinity`)),
		m.signed("leading zero", bad, "", claims(m.realm, fmt.Sprintf(`"nbf":0%d,"exp":%d`, m.now.Unix(), m.now.Unix()+60))),
		m.signed("comment", bad, "", more("/**/")),
		m.signed("trailing comma", bad, "", more(",")),
	}
}

// padTo appends spaces until the length modulo three is n.
func padTo(s string, n int) string {
	for len(s)%3 != n {
		s += " "
	}
	return s
}

// twistLast sets an unused bit of the last character.
func twistLast(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[last|1])
}

// kinds are other tokens that the same key signs.
func (m minter) kinds() []Token {
	const bad = auth.ReasonKind
	inner := Good(m.key, m.realm, m.now)
	unsigned := func(members string) string {
		return encode(`{"typ":"JWT","alg":"none"}`) + "." + encode(Claims(m.realm, m.now, members)) + "."
	}
	more := func(members string) string { return Claims(m.realm, m.now, members) }
	noNameID := fmt.Sprintf(`{"aud":"%s/%s@%s","iss":"%s@%s","nbf":%d,"exp":%d}`, Principal, Authority, m.realm,
		auth.PrincipalExchange, m.realm, m.now.Unix(), m.now.Add(time.Hour).Unix())
	return []Token{
		{"outer token", unsigned(`,"actortoken":"` + inner + `"`), bad},
		{"outer token, actort", unsigned(`,"actort":"` + inner + `"`), bad},
		m.signed("signed outer token", bad, "", more(`,"actortoken":"x"`)),
		m.signed("signed outer token, actort", bad, "", more(`,"actort":null`)),
		m.signed("actortoken below", bad, "", more(`,"x":[{"actortoken":"x"}]`)),
		m.signed("actortoken twisted", bad, "", more(`,"ActorToken":"x"`)),
		m.signed("actortoken by escape", bad, "", more(`,"\u0061ctortoken":"x"`)),
		m.signed("actortoken in the header", bad, m.header(`,"actortoken":"x"`), ""),
		m.signed("appctx", bad, "", more(`,"appctx":"{}"`)),
		m.signed("ver", bad, "", more(`,"ver":"Exchange.Callback.V1"`)),
		m.signed("scope", bad, "", more(`,"scope":"ParentItemId:x"`)),
		m.signed("scp", bad, "", more(`,"scp":"user_impersonation"`)),
		m.signed("no nameid", bad, "", noNameID),
		m.signed("typ of another kind", bad, strings.Replace(Header(m.key), `"JWT"`, `"at+jwt"`, 1), ""),
		m.signed("typ not a string", bad, strings.Replace(Header(m.key), `"JWT"`, `["JWT"]`, 1), ""),
	}
}

// algorithms are all but RS256.
func (m minter) algorithms() []Token {
	const bad = auth.ReasonAlgorithm
	payload := encode(Claims(m.realm, m.now, ""))
	head := func(alg string) string {
		return encode(fmt.Sprintf(`{"typ":"JWT","alg":%s,"x5t":"%s"}`, alg, x5t(m.key))) + "." + payload
	}
	resigned := func(alg string) string {
		return Sign(m.key.Private, fmt.Sprintf(`{"typ":"JWT","alg":%s,"x5t":"%s"}`, alg, x5t(m.key)), Claims(m.realm, m.now, ""))
	}
	hs256 := func(secret []byte) string {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(head(`"HS256"`)))
		return head(`"HS256"`) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	spki := m.key.Certificate.RawSubjectPublicKeyInfo
	ps := sha256.Sum256([]byte(head(`"PS256"`)))
	pss, err := rsa.SignPSS(rand.Reader, m.key.Private, crypto.SHA256, ps[:], nil)
	if err != nil {
		panic(err)
	}
	tokens := []Token{
		{"PS256", head(`"PS256"`) + "." + encode(string(pss)), bad},
		{"RS384", resigned(`"RS384"`), bad},
		{"RS512", resigned(`"RS512"`), bad},
		{"HS256 with the public key", hs256(spki), bad},
		{"HS256 with the public key in PEM", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), bad},
		{"HS256 with the certificate", hs256(m.key.Certificate.Raw), bad},
		{"ES256", es256(head(`"ES256"`)), bad},
		{"rs256", resigned(`"rs256"`), bad},
		{"alg empty", resigned(`""`), bad},
		{"alg an array", resigned(`["RS256"]`), bad},
		{"alg null", resigned(`null`), bad},
		m.signed("alg missing", bad, fmt.Sprintf(`{"typ":"JWT","x5t":"%s"}`, x5t(m.key)), ""),
	}
	for _, none := range []string{"none", "None", "NONE", "nOnE"} {
		tokens = append(tokens, Token{"alg " + none, head(`"`+none+`"`) + ".", bad},
			Token{"signed alg " + none, resigned(`"` + none + `"`), bad})
	}
	return tokens
}

func es256(signed string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + encode(string(signature))
}

// headers has each forbidden member, and thumbprints of the wrong form.
func (m minter) headers() []Token {
	const bad = auth.ReasonHeader
	forbidden := map[string]string{
		"jwk": `{"kty":"RSA","n":"AQAB","e":"AQAB"}`, "jku": `"https://evil.example/keys"`, "x5u": `"https://evil.example/cert"`,
		"x5c": `["` + base64.StdEncoding.EncodeToString(m.key.Certificate.Raw[:64]) + `"]`, "crit": `["exp"]`, "zip": `"DEF"`,
		"b64": `false`, "enc": `"A256GCM"`,
	}
	var tokens []Token
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "zip", "b64", "enc"} {
		tokens = append(tokens, m.signed("header "+name, bad, m.header(`,"`+name+`":`+forbidden[name]), ""))
	}
	x5tIs := func(literal string) string { return `{"typ":"JWT","alg":"RS256","x5t":` + literal + `}` }
	good := x5t(m.key)
	return append(tokens,
		m.signed("x5t missing", bad, `{"typ":"JWT","alg":"RS256"}`, ""),
		m.signed("x5t empty", bad, x5tIs(`""`), ""),
		m.signed("x5t null", bad, x5tIs(`null`), ""),
		m.signed("x5t of 19 bytes", bad, x5tIs(`"`+encode(strings.Repeat("x", 19))+`"`), ""),
		m.signed("x5t of 21 bytes", bad, x5tIs(`"`+encode(strings.Repeat("x", 21))+`"`), ""),
		m.signed("x5t with two pads", bad, x5tIs(`"`+good+`=="`), ""),
		m.signed("x5t of both alphabets", bad, x5tIs(`"`+"-+"+good[2:]+`"`), ""),
		m.signed("x5t with a newline", bad, x5tIs(`"`+good+`\n"`), ""),
		m.signed("x5t in hexadecimal", bad, x5tIs(`"`+certs.Thumbprint(m.key.Certificate)+`"`), ""),
		m.signed("x5t with trailing bits", bad, x5tIs(`"`+twistLast(good)+`"`), ""),
		m.signed("x5t#S256 of 20 bytes", bad, m.header(`,"x5t#S256":"`+good+`"`), ""),
		m.signed("x5t#S256 of another", auth.ReasonKeyUnknown, m.header(`,"x5t#S256":"`+encode(strings.Repeat("x", 32))+`"`), ""),
		m.signed("kid a number", auth.ReasonMalformed, m.header(`,"kid":1`), ""),
	)
}

// claims have the wrong form.
func (m minter) claims() []Token {
	const bad = auth.ReasonClaims
	nbf, exp := m.now.Unix(), m.now.Add(time.Hour).Unix()
	swap := func(old, with string) string {
		payload := Claims(m.realm, m.now, "")
		if !strings.Contains(payload, old) {
			panic("nothing to swap: " + old)
		}
		return strings.Replace(payload, old, with, 1)
	}
	aud := fmt.Sprintf(`"aud":"%s/%s@%s"`, Principal, Authority, m.realm)
	iss := fmt.Sprintf(`"iss":"%s@%s"`, auth.PrincipalExchange, m.realm)
	nameid := fmt.Sprintf(`"nameid":"%s@%s"`, auth.PrincipalExchange, m.realm)
	tokens := []Token{
		m.signed("aud an array", bad, "", swap(aud, fmt.Sprintf(`"aud":["%s/%s@%s"]`, Principal, Authority, m.realm))),
		m.signed("aud missing", bad, "", swap(aud, `"x":1`)),
		m.signed("aud without authority", bad, "", swap(aud, fmt.Sprintf(`"aud":"%s@%s"`, Principal, m.realm))),
		m.signed("aud with two authorities", bad, "", swap(aud, fmt.Sprintf(`"aud":"%s/a/%s@%s"`, Principal, Authority, m.realm))),
		m.signed("aud with two realms", bad, "", swap(aud, fmt.Sprintf(`"aud":"%s/%s@other.example@%s"`, Principal, Authority, m.realm))),
		m.signed("aud with no GUID", bad, "", swap(aud, fmt.Sprintf(`"aud":"relay/%s@%s"`, Authority, m.realm))),
		m.signed("iss missing", bad, "", swap(iss, `"x":1`)),
		m.signed("iss without realm", bad, "", swap(iss, `"iss":"`+auth.PrincipalExchange+`"`)),
		m.signed("iss realm empty", bad, "", swap(iss, `"iss":"`+auth.PrincipalExchange+`@"`)),
		m.signed("iss realm a star", bad, "", swap(iss, `"iss":"`+auth.PrincipalExchange+`@*"`)),
		m.signed("iss a number", bad, "", swap(iss, `"iss":1`)),
		m.signed("nameid a number", bad, "", swap(nameid, `"nameid":1`)),
		m.signed("nameid null", bad, "", swap(nameid, `"nameid":null`)),
		m.signed("nameid a name", bad, "", swap(nameid, `"nameid":"alice@`+m.realm+`"`)),
	}
	for _, t := range []struct{ name, rest string }{
		{"exp missing", fmt.Sprintf(`"nbf":%d`, nbf)},
		{"nbf missing", fmt.Sprintf(`"exp":%d`, exp)},
		{"exp null", fmt.Sprintf(`"nbf":%d,"exp":null`, nbf)},
		{"exp equals nbf", fmt.Sprintf(`"nbf":%d,"exp":%d`, nbf, nbf)},
		{"exp before nbf", fmt.Sprintf(`"nbf":%d,"exp":%d`, nbf, nbf-1)},
		{"string NaN", fmt.Sprintf(`"nbf":%d,"exp":"NaN"`, nbf)},
		{"string infinity", fmt.Sprintf(`"nbf":%d,"exp":"Infinity"`, nbf)},
		{"exponent", fmt.Sprintf(`"nbf":%d,"exp":1e10`, nbf)},
		{"huge exponent", fmt.Sprintf(`"nbf":%d,"exp":1e400`, nbf)},
		{"string exponent", fmt.Sprintf(`"nbf":%d,"exp":"1e10"`, nbf)},
		{"negative number", fmt.Sprintf(`"nbf":-1,"exp":%d`, exp)},
		{"negative string", fmt.Sprintf(`"nbf":"-1","exp":%d`, exp)},
		{"signed string", fmt.Sprintf(`"nbf":"+%d","exp":%d`, nbf, exp)},
		{"fractional string", fmt.Sprintf(`"nbf":%d,"exp":"%d.5"`, nbf, exp)},
		{"string with a space", fmt.Sprintf(`"nbf":%d,"exp":" %d"`, nbf, exp)},
		{"hexadecimal string", fmt.Sprintf(`"nbf":%d,"exp":"0x%x"`, nbf, exp)},
		{"empty string", fmt.Sprintf(`"nbf":%d,"exp":""`, nbf)},
		{"too many digits", fmt.Sprintf(`"nbf":%d,"exp":999999999999`, nbf)},
		{"overflowing digits", fmt.Sprintf(`"nbf":%d,"exp":18446744073709551617`, nbf)},
		{"exp a bool", fmt.Sprintf(`"nbf":%d,"exp":true`, nbf)},
		{"exp an array", fmt.Sprintf(`"nbf":%d,"exp":[%d]`, nbf, exp)},
		{"exp an object", fmt.Sprintf(`"nbf":%d,"exp":{}`, nbf)},
	} {
		tokens = append(tokens, m.signed(t.name, bad, "", claims(m.realm, t.rest)))
	}
	return tokens
}

// times are outside what the clock and the limits allow.
func (m minter) times() []Token {
	at := func(from, to time.Duration) string {
		return claims(m.realm, fmt.Sprintf(`"nbf":%d,"exp":%d`, m.now.Add(from).Unix(), m.now.Add(to).Unix()))
	}
	return []Token{
		m.signed("span over 25 hours", auth.ReasonSpan, "", at(-12*time.Hour, 13*time.Hour+time.Second)),
		m.signed("span of years", auth.ReasonSpan, "", claims(m.realm, `"nbf":0,"exp":99999999999`)),
		m.signed("expired", auth.ReasonExpired, "", at(-time.Hour, -310*time.Second)),
		m.signed("not yet valid", auth.ReasonNotYetValid, "", at(310*time.Second, time.Hour)),
	}
}

// realms are of others: in the audience, in one claim or in all.
func (m minter) realms() []Token {
	usual := Claims(m.realm, m.now, "")
	const other = "other.example"
	one := func(claim string) string {
		at := strings.Index(usual, `"`+claim+`"`)
		return usual[:at] + strings.Replace(usual[at:], "@"+m.realm, "@"+other, 1)
	}
	return []Token{
		m.signed("realm of another", auth.ReasonRealm, "", Claims(other, m.now, "")),
		m.signed("iss realm", auth.ReasonRealm, "", one("iss")),
		m.signed("nameid realm", auth.ReasonRealm, "", one("nameid")),
		m.signed("aud realm", auth.ReasonRealm, "", one("aud")),
		m.signed("longer realm", auth.ReasonRealm, "", Claims(m.realm+".evil.example", m.now, "")),
		m.signed("trailing dot", auth.ReasonRealm, "", Claims(m.realm+".", m.now, "")),
		m.signed("principal of another", auth.ReasonAudience, "", strings.Replace(usual, `"aud":"00000003`, `"aud":"00000004`, 1)),
		m.signed("authority of another", auth.ReasonAudience, "", strings.Replace(usual, Authority, "evil.example:8443", 1)),
		m.signed("port of another", auth.ReasonAudience, "", strings.Replace(usual, Authority, "relay.example.com", 1)),
	}
}

// signatures do not verify.
func (m minter) signatures() []Token {
	const bad = auth.ReasonSignature
	good := Good(m.key, m.realm, m.now)
	body, signature := cutLast(good)
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		panic(err)
	}
	flipped := append([]byte(nil), raw...)
	flipped[len(flipped)/2] ^= 1
	stranger := NewKey("stranger.example", m.now)
	return []Token{
		{"signature flipped", body + "." + encode(string(flipped)), bad},
		{"signature empty", body + ".", bad},
		{"signature short", body + "." + encode(string(raw[:len(raw)-1])), bad},
		{"signature long", body + "." + encode("\x00"+string(raw)), bad},
		{"signature of zeros", body + "." + encode(string(make([]byte, len(raw)))), bad},
		{"signature of another token", body + "." + last(Sign(m.key.Private, Header(m.key), Claims(m.realm, m.now, `,"x":1`))), bad},
		{"payload swapped", encode(Header(m.key)) + "." + encode(Claims(m.realm, m.now, `,"x":1`)) + "." + signature, bad},
		{"signed by a stranger under our x5t", Sign(stranger.Private, Header(m.key), Claims(m.realm, m.now, "")), bad},
		{"a stranger's own", Good(stranger, m.realm, m.now), auth.ReasonKeyUnknown},
	}
}

func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '.')
	return s[:i], s[i+1:]
}

func last(s string) string {
	_, after := cutLast(s)
	return after
}
