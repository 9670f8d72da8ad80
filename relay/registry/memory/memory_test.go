package memory

import (
	"testing"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/registrytest"
)

func TestRegistry(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		h := new(Database).Open(Config{})
		t.Cleanup(func() { _ = h.Close() })
		return h
	})
}
