package ewstest

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
)

// discover serves GetUserSettings of autodiscover.
func (s *Server) discover(w http.ResponseWriter, r *http.Request) {
	_, operation, err := parseRequest(r.Body)
	if err != nil {
		s.violate("%v", err)
		fault(w, http.StatusInternalServerError, "ErrorSchemaValidation", err.Error(), 0)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests[operation.XMLName.Local]++
	users := operation.at("Request", "Users")
	if operation.XMLName.Local != "GetUserSettingsRequestMessage" || users == nil {
		s.violateLocked("autodiscover was asked for %s", operation.XMLName.Local)
		return
	}
	if len(users.Children) > 100 {
		s.violateLocked("autodiscover was asked for %d users; at most 100", len(users.Children))
	}
	url := s.discovered()
	var b strings.Builder
	for _, u := range users.Children {
		m := s.find(u.text("Mailbox"))
		if m == nil {
			b.WriteString("<UserResponse><ErrorCode>InvalidUser</ErrorCode><ErrorMessage>Invalid user.</ErrorMessage><RedirectTarget i:nil=\"true\"/><UserSettingErrors/><UserSettings/></UserResponse>")
			continue
		}
		fmt.Fprintf(&b, `<UserResponse><ErrorCode>NoError</ErrorCode><ErrorMessage>No error.</ErrorMessage><RedirectTarget i:nil="true"/><UserSettingErrors/><UserSettings><UserSetting i:type="StringSetting"><Name>ExternalEwsUrl</Name><Value>%s</Value></UserSetting><UserSetting i:type="StringSetting"><Name>GroupingInformation</Name><Value>%s</Value></UserSetting></UserSettings></UserResponse>`,
			url, s.backEnds[m.home].name)
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = fmt.Fprintf(w, `<s:Envelope xmlns:s=%q xmlns:a="http://www.w3.org/2005/08/addressing"><s:Header/><s:Body><GetUserSettingsResponseMessage xmlns="http://schemas.microsoft.com/exchange/2010/Autodiscover"><Response xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><ErrorCode>NoError</ErrorCode><ErrorMessage/><UserResponses>%s</UserResponses></Response></GetUserSettingsResponseMessage></s:Body></s:Envelope>`,
		soapSpace, b.String()) // who is gone hears nothing
}

// discovered is the address that autodiscover names. The caller holds mu.
func (s *Server) discovered() string {
	switch {
	case s.config.Autodiscover != "":
		return s.config.Autodiscover
	case s.config.TLS:
		return "https://" + s.address + Path
	}
	return "http://" + s.address + Path
}

// discoverPlain serves autodiscover in plain XML, of one mailbox.
func (s *Server) discoverPlain(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		XMLName xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006 Autodiscover"`
		Mailbox string   `xml:"Request>EMailAddress"`
		Schema  string   `xml:"Request>AcceptableResponseSchema"`
	}
	const schema = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
	err := xml.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&asked)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests["Autodiscover"]++
	if err != nil || asked.Mailbox == "" || asked.Schema != schema {
		s.violateLocked("autodiscover was asked %+v (%v)", asked, err)
		http.Error(w, "not a request", http.StatusBadRequest)
		return
	}
	answer := `<Error Time="12:00:00.0" Id="1"><ErrorCode>500</ErrorCode><Message>The email address can't be found.</Message><DebugData/></Error>`
	if s.find(asked.Mailbox) != nil {
		answer = fmt.Sprintf(`<User><DisplayName>x</DisplayName></User><Account><AccountType>email</AccountType><Action>settings</Action>`+
			`<Protocol><Type>EXCH</Type><EwsUrl>https://inside.invalid%s</EwsUrl></Protocol><Protocol><Type>EXPR</Type><EwsUrl>%s</EwsUrl></Protocol>`+
			`<Protocol><Type>WEB</Type></Protocol></Account>`, Path, s.discovered())
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"><Response xmlns=%q>%s</Response></Autodiscover>`,
		schema, answer) // who is gone hears nothing
}
