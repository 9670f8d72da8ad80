package ewstest

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //nolint:staticcheck // NTLM has no other
)

var ntlmSignature = []byte("NTLMSSP\x00")

// ntlm takes one step of NTLM on a connection. answer is the challenge; ok says
// that the connection is authenticated now.
// Source: [MS-NLMP], sections 2.2.1 and 3.3.2 (read 2026-11).
func (s *Server) ntlm(c *connection, token []byte, password string, secure bool) (answer []byte, ok bool) {
	if len(token) < 12 || !bytes.HasPrefix(token, ntlmSignature) {
		s.violate("an NTLM token without its signature")
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch binary.LittleEndian.Uint32(token[8:]) {
	case 1:
		c.authenticated = false
		c.challenge = make([]byte, 8)
		_, _ = rand.Read(c.challenge) // never fails
		return challengeMessage(c.challenge), false
	case 3:
		if c.challenge == nil {
			s.violate("NTLM's third message came over another connection than its first")
			return nil, false
		}
		c.authenticated = s.ntlmProves(token, c.challenge, password, secure)
		c.challenge = nil
		return nil, c.authenticated
	}
	return nil, false
}

// challengeMessage is NTLM's second message, with the names of a server and its
// time.
func challengeMessage(challenge []byte) []byte {
	const flags = 0x00000001 | 0x00000200 | 0x00080000 | 0x00800000 | 0x20000000 | 0x80000000 // Unicode, NTLM, extended security, target info, 128, 56
	var info bytes.Buffer
	for _, pair := range []struct {
		id   uint16
		text []byte
	}{{2, utf16le("FABRIKAM")}, {1, utf16le("EX01")}, {0, nil}} {
		_ = binary.Write(&info, binary.LittleEndian, []uint16{pair.id, uint16(len(pair.text))}) // a buffer takes everything
		info.Write(pair.text)
	}
	target := utf16le("FABRIKAM")
	var b bytes.Buffer
	b.Write(ntlmSignature)
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	const header = 56
	put(uint32(2))
	put([]uint16{uint16(len(target)), uint16(len(target))})
	put(uint32(header))
	put(uint32(flags))
	b.Write(challenge)
	put(uint64(0))
	put([]uint16{uint16(info.Len()), uint16(info.Len())})
	put(uint32(header + len(target)))
	put(uint64(0x0f00000000000a0a)) // version
	b.Write(target)
	b.Write(info.Bytes())
	return b.Bytes()
}

// ntlmProves says whether NTLM's third message proves the password, and whether
// its binding to the TLS channel is what the server wants.
func (s *Server) ntlmProves(token, challenge []byte, password string, secure bool) bool {
	response, ok1 := ntlmField(token, 20)
	domain, ok2 := ntlmField(token, 28)
	user, ok3 := ntlmField(token, 36)
	if !ok1 || !ok2 || !ok3 || len(response) < 16+28 {
		return false
	}
	name, account, _ := strings.Cut(s.config.User, `\`)
	if account == "" {
		account, name = name, ""
	}
	if !strings.EqualFold(fromUTF16(user), account) || name != "" && !strings.EqualFold(fromUTF16(domain), name) {
		return false
	}
	hash := md4.New()
	hash.Write(utf16le(password))
	key := hmacMD5(hash.Sum(nil), append(utf16le(strings.ToUpper(fromUTF16(user))), domain...))
	if !hmac.Equal(hmacMD5(key, append(slices.Clone(challenge), response[16:]...)), response[:16]) {
		return false
	}
	binding := channelBinding(response[16+28:])
	none := len(binding) == 0 || bytes.Equal(binding, make([]byte, 16))
	if none {
		return !secure || s.config.ExtendedProtection != "Require"
	}
	return secure && bytes.Equal(binding, s.binding())
}

// channelBinding returns the binding among the client's attributes.
func channelBinding(attributes []byte) []byte {
	for len(attributes) >= 4 {
		id, n := binary.LittleEndian.Uint16(attributes), int(binary.LittleEndian.Uint16(attributes[2:]))
		if id == 0 || len(attributes) < 4+n {
			return nil
		}
		if id == 10 { // MsvAvChannelBindings
			return attributes[4 : 4+n]
		}
		attributes = attributes[4+n:]
	}
	return nil
}

// binding is that of this server's certificate: MD5 of RFC 2744's structure
// around RFC 5929's tls-server-end-point.
func (s *Server) binding() []byte {
	sum := sha256.Sum256(s.tls.Certificate.Raw)
	data := append([]byte("tls-server-end-point:"), sum[:]...)
	var b bytes.Buffer
	b.Write(make([]byte, 16))
	_ = binary.Write(&b, binary.LittleEndian, uint32(len(data))) // a buffer takes everything
	b.Write(data)
	hash := md5.Sum(b.Bytes())
	return hash[:]
}

func ntlmField(token []byte, at int) ([]byte, bool) {
	if len(token) < at+8 {
		return nil, false
	}
	n, offset := int(binary.LittleEndian.Uint16(token[at:])), int(binary.LittleEndian.Uint32(token[at+4:]))
	if offset > len(token) || n > len(token)-offset {
		return nil, false
	}
	return token[offset : offset+n], true
}

func hmacMD5(key, data []byte) []byte {
	mac := hmac.New(md5.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}
