package registry

import (
	"reflect"
	"testing"

	"badgerelay/apns"
)

// TestChangesAreReadAsTheyWereWritten holds what relays tell each other, of each kind.
func TestChangesAreReadAsTheyWereWritten(t *testing.T) {
	device, err := apns.DeviceTokenFromBytes(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	changes := []Change{
		{Kind: ChangeSubscribed, Organization: 1, OrganizationName: "fabrikam.com", Mailbox: "ann", Live: true},
		{Kind: ChangeDeviceShared, App: "mail", Device: device},
		{Kind: ChangeOrganizationChanged, Organization: 2, OrganizationName: "contoso.com", OrganizationEnabled: true},
		{Kind: ChangeUnsubscribed, Organization: 1, OrganizationName: "fabrikam.com", Mailbox: "b\x00ü"},
		{Kind: ChangeCredentialAdded, Organization: 1, OrganizationName: "fabrikam.com", CredentialID: "c1", KeySHA256: [32]byte{1, 31: 2}},
		{Kind: ChangeCredentialRemoved, Organization: 2, OrganizationName: "contoso.com", CredentialID: "c2", KeySHA256: [32]byte{3}},
		{Kind: ChangeOrganizationRemoved, Organization: 2, OrganizationName: "contoso.com"},
		{Kind: ChangeSubscribed, Organization: 1, OrganizationName: "fabrikam.com", Mailbox: "ann"},
	}
	want := [][]Change{{changes[0], changes[3], changes[4], changes[7]}, {changes[1]}, {changes[2], changes[5], changes[6]}}
	groups := byOrganization(changes)
	if !reflect.DeepEqual(groups, want) {
		t.Fatalf("by organization: %v, want %v", groups, want)
	}
	for _, group := range groups {
		data, err := marshalChanges(group)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unmarshalChanges([]byte(data)); err != nil || !reflect.DeepEqual(got, group) {
			t.Errorf("%s was read as %v, %v, want %v", data, got, err, group)
		}
	}
}
