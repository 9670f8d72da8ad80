package service

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// MaxMessageSize bounds a message to the relay: a batch of 10,000 events with
// the longest mailbox and every number at its largest is 3.2 MB.
const MaxMessageSize = 4 << 20

// Decoder is a message that decodes itself, and says itself what is wrong with it.
type Decoder interface {
	// Decode takes the message's bytes, which are gRPC's again when it returns.
	Decode(data mem.BufferSlice)
}

// NewCodec returns gRPC's protobuf codec, save that a Decoder decodes itself, and that a
// message that can't be decoded is a refusal of ours and not gRPC's INTERNAL.
func NewCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ encoding.CodecV2 }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case Decoder:
		v.Decode(data)
		return nil
	case *received:
		v.err = c.CodecV2.Unmarshal(data, v.message)
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// received takes a message of any type, and remembers that it was malformed.
type received struct {
	message any
	err     error
}
