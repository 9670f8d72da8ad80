package registry

import (
	"encoding/json"
	"fmt"
	"slices"

	"badgerelay/apns"
	"badgerelay/relay"
)

// changeJSON is how a Change is kept. Members that a program does not know are passed
// over, so that newer relays can add some.
type changeJSON struct {
	Kind         string `json:"kind"`
	Organization int64  `json:"organization"`
	Name         string `json:"name"`
	Enabled      bool   `json:"enabled,omitempty"`
	Mailbox      string `json:"mailbox,omitempty"`
	Live         bool   `json:"live,omitempty"`
	Renewed      bool   `json:"renewed,omitempty"`
	Credential   string `json:"credential,omitempty"`
	Key          []byte `json:"key,omitempty"`
	App          string `json:"app,omitempty"`
	Token        []byte `json:"token,omitempty"`
}

func toJSON(c Change) changeJSON {
	j := changeJSON{Kind: c.Kind.String(), Organization: int64(c.Organization), Name: c.OrganizationName, Enabled: c.OrganizationEnabled,
		Mailbox: c.Mailbox, Live: c.Live, Renewed: c.Renewed, Credential: c.CredentialID}
	if j.Credential != "" {
		j.Key = c.KeySHA256[:]
	}
	if c.Kind == ChangeDeviceShared {
		j.App, j.Token = c.App, c.Device.AppendRaw(nil)
	}
	return j
}

// change returns false for a kind that this program does not know.
func (j changeJSON) change() (Change, bool) {
	kind := slices.Index(changeKindNames[:], j.Kind)
	c := Change{Kind: ChangeKind(max(kind, 0)), Organization: relay.OrganizationID(j.Organization), OrganizationName: j.Name,
		OrganizationEnabled: j.Enabled, Mailbox: j.Mailbox, Live: j.Live, Renewed: j.Renewed, CredentialID: j.Credential}
	copy(c.KeySHA256[:], j.Key)
	if c.App = j.App; c.Kind == ChangeDeviceShared {
		var err error
		if c.Device, err = apns.DeviceTokenFromBytes(j.Token); err != nil {
			return c, false
		}
	}
	return c, kind > 0
}

// marshalChanges encodes changes as one row for each organization, in the order in which
// these come first.
func marshalChanges(changes []Change) (rows []string, err error) {
	var order []relay.OrganizationID
	by := make(map[relay.OrganizationID][]changeJSON)
	for _, c := range changes {
		if by[c.Organization] == nil {
			order = append(order, c.Organization)
		}
		by[c.Organization] = append(by[c.Organization], toJSON(c))
	}
	for _, org := range order {
		data, err := json.Marshal(by[org])
		if err != nil {
			return nil, fmt.Errorf("encode changes: %w", err)
		}
		rows = append(rows, string(data))
	}
	return rows, nil
}

// unmarshalChanges decodes the changes of a row that this program knows.
func unmarshalChanges(data []byte) (changes []Change, err error) {
	var all []changeJSON
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	for _, j := range all {
		if c, known := j.change(); known {
			changes = append(changes, c)
		}
	}
	return changes, nil
}
