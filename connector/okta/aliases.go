package okta

// FieldAliases name, for fields as rules write them, where else they are in an
// event: an alias counts only when the event has no such field of its own.
// Rules from before 2023 write every name in lower case; log stores write the
// first of each path so, and rules of today as Okta does.
var FieldAliases = aliases()

// paths are the fields that rules use, as Okta writes them.
// Source: https://developer.okta.com/docs/api/openapi/okta-management/management/tag/SystemLog/
var paths = [...]string{
	"actor.alternateId", "actor.detailEntry", "actor.displayName",
	"authenticationContext.authenticationProvider", "authenticationContext.authenticationStep",
	"authenticationContext.credentialProvider", "authenticationContext.credentialType",
	"authenticationContext.externalSessionId", "authenticationContext.interface",
	"authenticationContext.issuer.id", "authenticationContext.issuer.type", "authenticationContext.rootSessionId",
	"client.geographicalContext.city", "client.geographicalContext.country",
	"client.geographicalContext.geolocation.lat", "client.geographicalContext.geolocation.lon",
	"client.geographicalContext.postalCode", "client.geographicalContext.state",
	"client.ipAddress", "client.userAgent.browser", "client.userAgent.os", "client.userAgent.rawUserAgent",
	"debugContext.debugData.authMethodFirstEnrollment", "debugContext.debugData.authMethodFirstType",
	"debugContext.debugData.authMethodFirstVerificationTime", "debugContext.debugData.authMethodSecondEnrollment",
	"debugContext.debugData.authMethodSecondType", "debugContext.debugData.authMethodSecondVerificationTime",
	"debugContext.debugData.authnRequestId", "debugContext.debugData.behaviors", "debugContext.debugData.changeDetails",
	"debugContext.debugData.clientAuthType", "debugContext.debugData.deviceFingerprint", "debugContext.debugData.dtHash",
	"debugContext.debugData.factor", "debugContext.debugData.factorIntent", "debugContext.debugData.grantType",
	"debugContext.debugData.grantedScopes", "debugContext.debugData.initiationType",
	"debugContext.debugData.logOnlySecurityData", "debugContext.debugData.oktaUserAgentExtended",
	"debugContext.debugData.origin", "debugContext.debugData.privilegeGranted", "debugContext.debugData.privilegeRevoked",
	"debugContext.debugData.proxyType", "debugContext.debugData.pushOnlyResponseType",
	"debugContext.debugData.redirectUri", "debugContext.debugData.requestId", "debugContext.debugData.requestUri",
	"debugContext.debugData.requestedScopes", "debugContext.debugData.risk", "debugContext.debugData.signOnMode",
	"debugContext.debugData.smsProvider", "debugContext.debugData.suspiciousActivityEventId",
	"debugContext.debugData.suspiciousActivityEventType", "debugContext.debugData.threatDetections",
	"debugContext.debugData.threatSuspected", "debugContext.debugData.transactionId",
	"debugContext.debugData.tunnels", "debugContext.debugData.url", "debugContext.debugData.userId",
	"displayMessage", "eventType", "legacyEventType",
	"request.ipChain.geographicalContext.city", "request.ipChain.geographicalContext.country",
	"request.ipChain.geographicalContext.geolocation.lat", "request.ipChain.geographicalContext.geolocation.lon",
	"request.ipChain.geographicalContext.postalCode", "request.ipChain.geographicalContext.state",
	"request.ipChain.ip", "request.ipChain.source", "request.ipChain.version",
	"securityContext.asNumber", "securityContext.asOrg", "securityContext.domain", "securityContext.isProxy", "securityContext.isp",
	"target.alternateId", "target.changeDetails.from", "target.changeDetails.to", "target.detailEntry", "target.displayName",
	"transaction.detail.requestApiTokenId", "transaction.detail.rootApiTokenId",
}

// Fields are the first keys of events.
var Fields = []string{
	"actor", "authenticationContext", "client", "debugContext", "device", "displayMessage", "eventType", "legacyEventType",
	"outcome", "published", "request", "securityContext", "severity", "target", "transaction", "uuid", "version",
}

func aliases() map[string]string {
	all := make(map[string]string, 2*len(paths))
	for _, path := range paths {
		if low := lower(path, len(path)); low != path {
			all[low] = path
		}
		first := 0
		for first < len(path) && path[first] != '.' {
			first++
		}
		if stored := lower(path, first); stored != path {
			all[path] = stored
		}
	}
	return all
}

// lower writes the first n bytes of an ASCII path in lower case.
func lower(path string, n int) string {
	b := []byte(path)
	for i := range b[:n] {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
