package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"unicode/utf16"
)

// ReadFile reads a certificate as people have them in files, and
// checks its key like Parse: DER, PEM, bare base64, a PKCS #7 file
// (.p7b) with one certificate, and the text forms in UTF-8 or UTF-16 with a byte
// order mark, as Windows' tools write them. Every error wraps ErrCertificate.
func ReadFile(data []byte) (*x509.Certificate, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrCertificate, MaxSize)
	}
	data = plainText(data)
	block, rest := pem.Decode(data)
	switch {
	case block != nil && (block.Type == "PKCS7" || block.Type == "CMS") && len(bytes.TrimSpace(rest)) == 0:
		data = block.Bytes
	case block != nil:
		return Parse(bytes.TrimSpace(data))
	default:
		if der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(data), nil))); err == nil && len(der) > 0 {
			data = der
		}
	}
	der, found, err := fromPKCS7(data)
	if err != nil {
		return nil, err
	}
	if found {
		data = der
	}
	return Parse(data)
}

// plainText returns text in UTF-8 without a byte order mark; what has none stays
// as it is.
func plainText(data []byte) []byte {
	if text, ok := bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); ok {
		return text
	}
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return data
	}
	var units []uint16
	for at := 2; at+1 < len(data); at += 2 {
		units = append(units, order.Uint16(data[at:]))
	}
	return []byte(string(utf16.Decode(units)))
}

// oidSignedData is PKCS #7's content type of certificates (RFC 5652, section 5.1).
var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// fromPKCS7 returns the one certificate of a PKCS #7 file; found: it is such a
// file.
func fromPKCS7(data []byte) (der []byte, found bool, err error) {
	var content struct {
		Type asn1.ObjectIdentifier
		Data asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(data, &content); err != nil || len(rest) > 0 || !content.Type.Equal(oidSignedData) {
		return nil, false, nil //nolint:nilerr // it is something else
	}
	var signed struct {
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue
	}
	if _, err := asn1.Unmarshal(content.Data.Bytes, &signed); err != nil {
		return nil, true, fmt.Errorf("%w: PKCS #7: %w", ErrCertificate, err)
	}
	var one asn1.RawValue
	rest, err := asn1.Unmarshal(signed.Certificates.Bytes, &one)
	if err != nil {
		return nil, true, fmt.Errorf("%w: the PKCS #7 file holds no certificate", ErrCertificate)
	}
	if len(rest) > 0 {
		return nil, true, fmt.Errorf("%w: the PKCS #7 file holds more than one certificate; export the one that signs", ErrCertificate)
	}
	return one.FullBytes, true, nil
}
