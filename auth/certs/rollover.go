package certs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Stage makes the next certificate for domain, to be published at effective.
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

// Publish makes the next certificate current and the current one previous.
// Without a next it is ErrNoCertificate, before its date ErrNotEffective
// unless confirmed.
func (s *Store) Publish(confirmed bool) (pair *Pair, err error) {
	err = s.change(func(state *State) (bool, error) {
		if pair, err = s.Load(state.Next); err != nil {
			return false, err
		}
		if time.Now().Before(state.Next.EffectiveAt) && !confirmed {
			return false, ErrNotEffective
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
	var gone string
	err := s.change(func(state *State) (bool, error) {
		switch {
		case state.Previous == nil:
			return false, ErrNoCertificate
		case time.Now().Before(state.Previous.RetireAt) && !confirmed:
			return false, ErrOverlap
		}
		gone, state.Previous = state.Previous.Thumbprint, nil
		return true, nil
	})
	if err != nil || filepath.Base(gone) != gone {
		return err
	}
	return errors.Join(removeIfThere(s.path(gone+".key")), removeIfThere(s.path(gone+".cer")))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
