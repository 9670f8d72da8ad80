// Package rig builds what measurements and chaos run on: the keys, the organizations,
// the registry with its devices, a relay's configuration, and the processes.
//
// Mailboxes and device tokens follow from their numbers, so that the simulator
// and the load generator, which are processes of their own, need not be told
// them.
package rig
