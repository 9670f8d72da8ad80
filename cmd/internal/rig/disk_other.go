//go:build !linux

package rig

import "errors"

var errMount = errors.New("a small file system can be mounted on Linux only")

func mountSmall(string, string) error { return errMount }

func unmount(string) error { return errMount }

func setImmutable(string, bool) error { return errMount }
