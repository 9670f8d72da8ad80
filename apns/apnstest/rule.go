package apnstest

// Rule names the rule that a refusal rests on. Empty: none was broken.
// [DOC]: on Apple's pages; [OBS]: observed by others; [INFER]: our deduction;
// all read 2026-11.
type Rule string

// Rules of connections.
const (
	RuleTLS           Rule = "C1"  // TLS 1.2 or later, and h2 where the client offers ALPN [DOC, OBS]
	RuleStreamLimit   Rule = "C3"  // no more streams than granted: one until the first valid token was answered [DOC, OBS]
	RuleErrors        Rule = "C5"  // too many refused requests slow a connection down, then end it [DOC; numbers INFER]
	RuleIdle          Rule = "C6"  // idle connections end [INFER]
	RuleShutdown      Rule = "C7"  // a server that leaves says Shutdown [DOC]
	RuleChurn         Rule = "C8"  // opening and closing connections all the time is taken for an attack [DOC; number INFER]
	RulePriorityFrame Rule = "C10" // PRIORITY frames are ignored, do not send them [DOC]
	RuleHTTP2         Rule = "C11" // RFC 9113 and RFC 7541
	RuleCompression   Rule = "C12" // :path and apns-id do not belong in the compression table [DOC]
	RuleLowered       Rule = "C13" // a limit lowered at run time refuses further streams [OBS pushy#486]
)

// Rules of provider tokens and certificates.
const (
	RuleTokenMissing      Rule = "T1" // provider token or certificate [DOC]
	RuleTokenInvalid      Rule = "T2" // three parts of base64url, ES256, known kid and iss, good signature [DOC; other forms OBS]
	RuleTokenExpired      Rule = "T3" // iat at most an hour old [DOC]
	RuleTokenFuture       Rule = "T4" // iat not in the future [INFER]
	RuleTokenUpdates      Rule = "T5" // a new token at most every 20 minutes [DOC]
	RuleTokenTeam         Rule = "T6" // one team per connection [DOC; reason OBS pushy#399]
	RuleTokenKey          Rule = "T7" // one key per connection, of this environment [DOC]
	RuleTopicAdded        Rule = "T8" // topics added after the first push need a new connection [DOC; reason INFER]
	RuleCertificate       Rule = "T9" // a good client certificate of this environment, with the topic [DOC]
	tokenMaxAgeSeconds         = 3600 // T3: Apple, "Establishing a token-based connection to APNs", read 2026-11
	tokenMinChangeSeconds      = 1200 // T5: same page
)

// Rules of requests.
const (
	RuleMethod         Rule = "R1"  // POST [DOC]
	RulePath           Rule = "R2"  // /3/device/<token> [DOC]
	RuleID             Rule = "R3"  // apns-id is a UUID, 8-4-4-4-12 [DOC]
	RuleDuplicate      Rule = "R4"  // no documented header twice [DOC]
	RuleExpiration     Rule = "R5"  // apns-expiration is a number of seconds [DOC]
	RulePriority       Rule = "R6"  // apns-priority 10, 5 or 1; not 10 for background [DOC; the latter's reason INFER]
	RuleCollapseID     Rule = "R7"  // apns-collapse-id has at most 64 bytes [DOC]
	RulePushType       Rule = "R8"  // one of eleven push types, matching the payload [DOC]
	RuleTopicMissing   Rule = "R9"  // apns-topic [DOC]
	RuleTopic          Rule = "R10" // a topic of the team, with the suffix of the push type [DOC]
	RulePayload        Rule = "R11" // 1 to 4096 bytes, voip 5120 [DOC]
	RuleDeviceToken    Rule = "R12" // a known device token of this environment [DOC]
	RuleDeviceTopic    Rule = "R13" // the device token belongs to the topic [DOC]
	RuleUnregistered   Rule = "R14" // the device is registered [DOC]
	RuleDeviceExpired  Rule = "R15" // the device token has not expired [DOC]
	RuleTooManyPushes  Rule = "R16" // not too many pushes to one device [DOC; numbers INFER]
	RulePayloadNotJSON Rule = "R19" // the payload is JSON [DOC; Apple names no reason]
)
