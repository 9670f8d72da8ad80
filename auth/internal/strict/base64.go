package strict

import (
	"encoding/base64"
	"strings"
)

// strictBase64URL refuses nonzero trailing bits.
var strictBase64URL = base64.RawURLEncoding.Strict()

// DecodeBase64URL decodes unpadded base64url. Go's decoder skips CR and LF
// even when strict, so they are refused first.
func DecodeBase64URL(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(strings.IndexAny(s, "\r\n"))
	}
	return strictBase64URL.DecodeString(s)
}
