package registry

import (
	"encoding/json"
	"fmt"
	"slices"

	"badgerelay/apns"
	"badgerelay/relay"
)

// changesJSON is how the changes of an organization in a transaction are kept: in a row.
// Members that a program does not know are passed over, so that newer relays can add
// some.
type changesJSON struct {
	Organization int64        `json:"organization"` // 0: they are of none
	Name         string       `json:"name"`
	Changes      []changeJSON `json:"changes"`
}

// changeJSON is one of them.
type changeJSON struct {
	Kind       string `json:"kind"`
	Enabled    bool   `json:"enabled,omitempty"`
	Mailbox    string `json:"mailbox,omitempty"`
	Live       bool   `json:"live,omitempty"`
	Credential string `json:"credential,omitempty"`
	Key        []byte `json:"key,omitempty"`
	App        string `json:"app,omitempty"`
	Token      []byte `json:"token,omitempty"`
}

func toJSON(c Change) changeJSON {
	j := changeJSON{Kind: c.Kind.String(), Enabled: c.OrganizationEnabled,
		Mailbox: c.Mailbox, Live: c.Live, Credential: c.CredentialID}
	if j.Credential != "" {
		j.Key = c.KeySHA256[:]
	}
	if c.Kind == ChangeDeviceShared {
		j.App, j.Token = c.App, c.Device.AppendRaw(nil)
	}
	return j
}

// change returns false for a kind that this program does not know.
func (j *changeJSON) change(of *changesJSON) (Change, bool) {
	kind := slices.Index(changeKindNames[:], j.Kind)
	c := Change{Kind: ChangeKind(max(kind, 0)), Organization: relay.OrganizationID(of.Organization), OrganizationName: of.Name,
		OrganizationEnabled: j.Enabled, Mailbox: j.Mailbox, Live: j.Live, CredentialID: j.Credential}
	copy(c.KeySHA256[:], j.Key)
	if c.App = j.App; c.Kind == ChangeDeviceShared {
		var err error
		if c.Device, err = apns.DeviceTokenFromBytes(j.Token); err != nil {
			return c, false
		}
	}
	return c, kind > 0
}

// byOrganization groups changes, in the order in which their organizations come first.
func byOrganization(changes []Change) (groups [][]Change) {
	at := make(map[relay.OrganizationID]int)
	for _, c := range changes {
		i, found := at[c.Organization]
		if !found {
			i = len(groups)
			at[c.Organization], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], c)
	}
	return groups
}

// marshalChanges encodes the changes of one organization; there is one at least.
func marshalChanges(changes []Change) (string, error) {
	of := changesJSON{Organization: int64(changes[0].Organization), Name: changes[0].OrganizationName, Changes: make([]changeJSON, 0, len(changes))}
	for _, c := range changes {
		of.Changes = append(of.Changes, toJSON(c))
	}
	data, err := json.Marshal(of)
	if err != nil {
		return "", fmt.Errorf("encode changes: %w", err)
	}
	return string(data), nil
}

// unmarshalChanges decodes the changes of a row that this program knows.
func unmarshalChanges(data []byte) (changes []Change, err error) {
	var of changesJSON
	if err := json.Unmarshal(data, &of); err != nil {
		return nil, err
	}
	for i := range of.Changes {
		if c, known := of.Changes[i].change(&of); known {
			changes = append(changes, c)
		}
	}
	return changes, nil
}
