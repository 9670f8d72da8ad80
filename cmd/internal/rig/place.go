package rig

import (
	"context"
	"fmt"

	"badgerelay/relay/freeport"
)

// place is where one of the relays is found.
type place struct {
	agents, ops    string // addresses
	config, socket string // names of files
	wires          *Wires // nil: it is connected directly
	database       string // URL of the registry over the wires
}

// findPlaces finds a place for each of n relays. The first has the names that a
// single one has.
func findPlaces(n int) ([]place, error) {
	places := make([]place, n)
	for i := range places {
		p := place{config: fileConfig, socket: fileSocket}
		if i > 0 {
			p.config, p.socket = fmt.Sprint(i+1, "-", fileConfig), fmt.Sprint(i+1, "-", fileSocket)
		}
		var err error
		if p.agents, err = freeport.Address(); err != nil {
			return nil, err
		}
		if p.ops, err = freeport.Address(); err != nil {
			return nil, err
		}
		places[i] = p
	}
	return places, nil
}

// AgentsOf returns where each of the first n relays serves agents.
func (r *Rig) AgentsOf(n int) []string {
	var all []string
	for _, p := range r.places[:n] {
		if p.wires != nil {
			all = append(all, p.wires.Agents.Address())
			continue
		}
		all = append(all, p.agents)
	}
	return all
}

// StartRelays starts the first n relays, one after the other, and waits until
// all are ready.
func (r *Rig) StartRelays(ctx context.Context, n int) ([]*Relay, error) {
	var all []*Relay
	for i := range n {
		relay, err := r.StartRelay(ctx, i)
		if err != nil {
			return nil, err // the group ends those that run
		}
		all = append(all, relay)
	}
	return all, nil
}
