package certs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Stage makes the next certificate for domain, to be published at effective. One
// that was staged is forgotten, and its key deleted.
//
// Less than PublishNotice before that it is ErrShortNotice, and ErrStaged if
// one is staged already, unless confirmed. Without a current certificate it
// is ErrNoCertificate.
func (s *Store) Stage(domain string, effective time.Time, confirmed bool) (pair *Pair, err error) {
	err = s.change(func(state *State) (bool, error) {
		now := time.Now()
		switch {
		case state.Current == nil:
			return false, ErrNoCertificate
		case state.Next != nil && !confirmed:
			return false, ErrStaged
		case effective.Sub(now) < PublishNotice && !confirmed:
			return false, ErrShortNotice
		}
		slot, fresh, err := s.create(domain, now)
		if err != nil {
			return false, err
		}
		slot.EffectiveAt = effective.UTC()
		state.Next, pair = slot, fresh
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return pair, nil
}

// Reschedule changes the date of the next certificate. Without one it is
// ErrNoCertificate, less than PublishNotice before the new date
// ErrShortNotice unless confirmed.
func (s *Store) Reschedule(effective time.Time, confirmed bool) error {
	return s.change(func(state *State) (bool, error) {
		switch {
		case state.Next == nil:
			return false, ErrNoCertificate
		case state.Next.EffectiveAt.Equal(effective):
			return false, nil
		case time.Until(effective) < PublishNotice && !confirmed:
			return false, ErrShortNotice
		}
		state.Next.EffectiveAt = effective.UTC()
		return true, nil
	})
}

// InOverlap reports whether a previous certificate may still be in use: the relay may
// know only that one.
func (s *Slot) InOverlap(now time.Time) bool { return s != nil && now.Before(s.RetireAt) }

// Publish makes the next certificate current and the current one previous. The
// previous one of before is forgotten, and its key deleted.
//
// Without a next it is ErrNoCertificate; unless confirmed, before its date
// ErrNotEffective, and in the overlap of the previous one ErrOverlap.
func (s *Store) Publish(confirmed bool) (pair *Pair, err error) {
	err = s.change(func(state *State) (bool, error) {
		if pair, err = s.Load(state.Next); err != nil {
			return false, err
		}
		if time.Now().Before(state.Next.EffectiveAt) && !confirmed {
			return false, ErrNotEffective
		}
		if state.Previous.InOverlap(time.Now()) && !confirmed {
			return false, ErrOverlap
		}
		next := *state.Next
		next.EffectiveAt = time.Time{}
		state.Previous, state.Current, state.Next = state.Current, &next, nil
		if state.Previous != nil {
			state.Previous.RetireAt = time.Now().Add(Overlap).UTC().Truncate(time.Second)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return pair, nil
}

// ClearPrevious forgets the previous certificate and deletes its key.
// None is ErrNoCertificate, before its overlap is over ErrOverlap unless
// confirmed.
func (s *Store) ClearPrevious(confirmed bool) error {
	return s.change(func(state *State) (bool, error) {
		switch {
		case state.Previous == nil:
			return false, ErrNoCertificate
		case state.Previous.InOverlap(time.Now()) && !confirmed:
			return false, ErrOverlap
		}
		state.Previous = nil
		return true, nil
	})
}

// drop deletes the files of what before had and after has not.
func (s *Store) drop(before, after State) (err error) {
	for _, slot := range []*Slot{before.Current, before.Next, before.Previous} {
		if slot == nil || after.has(slot.Thumbprint) || filepath.Base(slot.Thumbprint) != slot.Thumbprint {
			continue // the last: it is no name of ours
		}
		err = errors.Join(err, removeIfThere(s.path(slot.Thumbprint+".key")), removeIfThere(s.path(slot.Thumbprint+".cer")))
	}
	return err
}

func (s *State) has(thumbprint string) bool {
	for _, slot := range []*Slot{s.Current, s.Next, s.Previous} {
		if slot != nil && slot.Thumbprint == thumbprint {
			return true
		}
	}
	return false
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
