package ingest

import (
	"fmt"
	"maps"
	"strings"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// minExchange is the build of Exchange 2013 Cumulative Update 3, the first
// whose agents the relay supports. Source: Microsoft, "Exchange Server build
// numbers and release dates" (read 2026-11).
const minExchange = "15.0.775.38"

// Bounds of what an agent says about itself; badgerelay.v1.Agent.
const (
	maxAgentName      = 128 // bytes
	maxProduct        = 64  // bytes
	maxProductVersion = 64  // bytes
)

// products knows the least version of each product that has one, by lower-case
// name.
type products map[string]string

// newProducts takes the configured minimums; nil selects the default, an empty
// version removes one.
func newProducts(configured map[string]string) (products, error) {
	p := products{"exchange": minExchange}
	for name, version := range configured {
		if version != "" && !dottedNumeric(version) {
			return nil, fmt.Errorf("minimum version %q of product %q is not dotted numeric", version, name)
		}
		p[strings.ToLower(name)] = version
	}
	maps.DeleteFunc(p, func(_, version string) bool { return version == "" })
	return p, nil
}

// check refuses an agent that breaks a rule or whose product is too old.
func (p products) check(a *pb.Agent) error {
	if rule := registry.NameRule(a.GetName(), maxAgentName); rule != "" {
		return service.Invalid("agent.name", rule)
	}
	if rule := registry.NameRule(a.GetProduct(), maxProduct); rule != "" && a.GetProduct() != "" {
		return service.Invalid("agent.product", rule)
	}
	if rule := registry.NameRule(a.GetProductVersion(), maxProductVersion); rule != "" && a.GetProductVersion() != "" {
		return service.Invalid("agent.product_version", rule)
	}
	return p.checkVersion(a.GetProduct(), a.GetProductVersion())
}

func (p products) checkVersion(product, version string) error {
	least, bounded := p[strings.ToLower(product)]
	switch {
	case !bounded:
		return nil
	case version == "":
		return service.Invalid("agent.product_version", "is required for "+product)
	case !dottedNumeric(version):
		return service.Invalid("agent.product_version", "is not numbers with dots between")
	case compareVersions(version, least) >= 0:
		return nil
	}
	r := service.Refuse(codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_PRODUCT_TOO_OLD,
		"%s %s is older than %s, the oldest version the relay supports", product, version, least)
	r.Metadata = map[string]string{"product": product, "version": version, "minimum_version": least}
	return r
}

// dottedNumeric reports whether v is decimal numbers with single dots between.
func dottedNumeric(v string) bool {
	for part := range strings.SplitSeq(v, ".") {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

// compareVersions compares two dotted numeric versions number by number; a
// missing number counts as 0. The numbers may be of any length.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}
