package ewstest

import (
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
	url := s.config.Autodiscover
	if url == "" {
		scheme := "http://"
		if s.config.TLS {
			scheme = "https://"
		}
		url = scheme + s.address + Path
	}
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
