package relay

import "unsafe"

// ahead is how many events Submit looks ahead: enough to wait for their memory
// side by side, and few enough for it to fit into a core's nearest cache.
const ahead = 32

// place is where a mailbox is looked for.
type place struct {
	shard *shard
	hash  uint64
}

// foresee finds the places of some events and asks for the memory of their
// mailboxes. It takes no lock: what is not there any more when accept comes
// was asked for in vain.
func (r *Relay) foresee(org OrganizationID, events []Event, places *[ahead]place) {
	var slots [ahead]*indexSlot[mailbox]
	for i := range events {
		sh, hash := r.shardOf(org, events[i].Mailbox)
		places[i] = place{sh, hash}
		if len(events) > 1 { // one alone has nothing to wait beside
			slots[i] = sh.index.home(hash)
			prefetch(unsafe.Pointer(slots[i]), unsafe.Sizeof(*slots[i]))
		}
	}
	for _, slot := range slots[:len(events)] {
		if slot == nil {
			continue
		}
		prefetch(unsafe.Pointer(slot.item.Load()), unsafe.Sizeof(mailbox{}))
	}
}
