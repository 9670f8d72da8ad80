package main

import (
	"testing"

	"badgerelay/cmd/internal/rig/rigtest"
)

func TestMain(m *testing.M) { rigtest.Main(m) }
