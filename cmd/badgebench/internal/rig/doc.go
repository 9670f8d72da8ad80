// Package rig builds what a measurement needs: the keys, the organization, the
// registry with its devices, a relay's configuration, and the processes.
//
// Mailboxes and device tokens follow from their numbers, so that the simulator
// and the load generator, which are processes of their own, need not be told
// them.
package rig
