package ingest

import (
	"fmt"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// Bounds of how an agent says which it is; badgerelay.v1.Hello.
const (
	maxAgentID  = 128 // bytes
	maxInstance = 64  // bytes
)

// checkIdentity refuses a hello that does not say whose stream it opens.
func checkIdentity(hello *pb.Hello) error {
	if err := checkID("agent_id", hello.GetAgentId(), maxAgentID); err != nil {
		return err
	}
	if err := checkID("instance", hello.GetInstance(), maxInstance); err != nil {
		return err
	}
	if hello.GetNumber() == 0 {
		return service.Invalid("number", "is 0; streams are numbered from 1")
	}
	return nil
}

// checkID refuses what is not 1 to most visible ASCII characters.
func checkID(field, id string, most int) error {
	switch {
	case id == "":
		return service.Invalid(field, "is required")
	case len(id) > most:
		return service.Invalid(field, fmt.Sprintf("is longer than %d bytes", most))
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return service.Invalid(field, "has a character that is not visible ASCII")
		}
	}
	return nil
}
