package azure_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
	"remit/connector/azure"
	"remit/connector/connectortest"
)

func written(r remit.Ref) string {
	if r == (remit.Ref{}) {
		return ""
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// TestLabelled decodes every labelled event and counts what was found, against
// what the raw events have.
func TestLabelled(t *testing.T) {
	var total, times, actors, addresses, resources, actions, tenants int
	var withTime, withName, withAddress, withResource, withTenant int
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	for _, l := range connectortest.Labelled(t, "azure_activity.jsonl") {
		v := fastjson.MustParseBytes(l.Log)
		if (azure.SignIn{}).Recognizes(v) || (azure.Directory{}).Recognizes(v) {
			t.Errorf("%s, %s is taken for a log of Entra", l.Rule, l.Case)
		}
		e := connectortest.Decode(t, azure.Activity{}, string(l.Log))
		total++
		count(&times, !e.Time.IsZero())
		count(&actors, e.Actor.Name != "")
		count(&addresses, e.Address != "")
		count(&resources, e.Resource.Name != "")
		count(&actions, e.Action != "")
		count(&tenants, e.Native != "")
		count(&withTime, v.Exists("time"))
		count(&withName, v.Exists("identity", "claims"))
		count(&withAddress, v.Exists("callerIpAddress"))
		count(&withResource, v.Exists("resourceId") || v.Exists("properties", "objectKey"))
		count(&withTenant, v.Exists("tenantId"))
		if e.ID == "" || e.Outcome == "" || len(e.Views) != 1 {
			t.Errorf("%s, %s: ID %q, outcome %q, %d views", l.Rule, l.Case, e.ID, e.Outcome, len(e.Views))
		}
	}
	t.Logf("of %d: time %d/%d, actor %d/%d, address %d/%d, resource %d/%d, action %d, tenant %d/%d",
		total, times, withTime, actors, withName, addresses, withAddress, resources, withResource, actions, tenants, withTenant)
	if times != withTime || actors != withName || addresses != withAddress || resources != withResource || actions != total || tenants != withTenant {
		t.Error("some events have what was not found")
	}
}

const (
	sub1   = "12345678-1234-1234-1234-123456789abc"
	group1 = sub1 + "//subscriptions/" + sub1 + "/resourcegroups/"
)

// TestLabelledByHand compares events of various kinds with what a reader of the
// raw event finds: actor, type of credential, action and whether it writes,
// resource, address, outcome and status, time.
func TestLabelledByHand(t *testing.T) {
	tests := []struct{ rule, name, want string }{
		{"AlertRules.Deleted", "Alert Rule Deleted", " |  | Microsoft.Insights/alertRules/delete true | microsoft.insights/alertrules " + group1 + "myresourcegroup/providers/microsoft.insights/alertrules/myalert | 1.1.1.1 | allowed 200 | 2024-12-17T10:30:00Z"},
		{"AlertRules.Deleted", "Metric Alert Deleted", " |  | Microsoft.Insights/metricAlerts/delete true | microsoft.insights/metricalerts " + group1 + "prod-rg/providers/microsoft.insights/metricalerts/cpualert | 1.2.3.4 | allowed 0 | 2024-12-17T11:45:00Z"},
		{"Security.AlertSuppressionRuleCreated", "Alert Suppression Rule Created", " |  | MICROSOFT.SECURITY/ALERTSSUPPRESSIONRULES/WRITE true | microsoft.security/alertssuppressionrules " + sub1 + "//subscriptions/" + sub1 + "/providers/microsoft.security/alertssuppressionrules/suppressfalsepositives | 1.1.1.1 | allowed 200 | 2025-12-22T10:30:00Z"},
		{"Automation.WebhookCreated", "Automation Webhook Created with ACTION", " |  | MICROSOFT.AUTOMATION/AUTOMATIONACCOUNTS/WEBHOOKS/ACTION true | microsoft.automation/automationaccounts/webhooks " + group1 + "automation-rg/providers/microsoft.automation/automationaccounts/my-automation/webhooks/malicious-webhook | 1.1.1.1 | allowed 0 | 2025-12-22T10:30:00Z"},
		{"KeyVault.SecretAccessedOrRecovered", "Secret Accessed", "Application 87654321-4321-4321-4321-111111111111/" + sub1 + " |  | Microsoft.KeyVault/vaults/secrets/getSecret/action false | microsoft.keyvault/vaults/secrets " + group1 + "myresourcegroup/providers/microsoft.keyvault/vaults/myvault/secrets/database-password | 1.1.1.1 | allowed 0 | 2024-12-17T10:30:00Z"},
		{"Policy.Violation", "Shared Key Access Policy Violation", " |  | microsoft.authorization/policies/audit/action false | microsoft.storage/storageaccounts 11111111-1111-1111-1111-111111111111//subscriptions/11111111-1111-1111-1111-111111111111/resourcegroups/prod-rg/providers/microsoft.storage/storageaccounts/prodstorage | 1.2.3.4 | allowed 0 | 2025-12-22T11:15:00Z"},
		{"RecoveryServices.ProtectionContainerDeleted", "Protection Container Deleted Successfully", "User /compromised-admin@company.com |  | MICROSOFT.RECOVERYSERVICES/VAULTS/BACKUPFABRICS/PROTECTIONCONTAINERS/DELETE true | microsoft.recoveryservices/vaults/backupfabrics/protectioncontainers " + group1 + "backup-rg/providers/microsoft.recoveryservices/vaults/productionbackupvault/backupfabrics/azure/protectioncontainers/iaasvmcontainer;iaasvmcontainerv2;prod-rg;prod-vm-001 | 203.0.113.42 | allowed 200 | 2025-01-27T14:55:00Z"},
		{"RecoveryServices.ProtectionContainerDeleted", "Failed Protection Container Deletion", " |  | MICROSOFT.RECOVERYSERVICES/VAULTS/BACKUPFABRICS/PROTECTIONCONTAINERS/DELETE true | microsoft.recoveryservices/vaults/backupfabrics/protectioncontainers " + sub1 + "//subscriptions/" + sub1 + "/resourcegroups/locked-backup-rg/providers/microsoft.recoveryservices/vaults/protectedvault/backupfabrics/azure/protectioncontainers/iaasvmcontainer;iaasvmcontainerv2;critical-rg;critical-vm | 198.18.0.50 | denied 403 | 2025-01-27T17:00:00Z"},
		{"Automation.ServerlessExecution", "Failed Runbook Job Execution", " |  | MICROSOFT.AUTOMATION/AUTOMATIONACCOUNTS/JOBS/WRITE true | microsoft.automation/automationaccounts/jobs 44444444-4444-4444-4444-444444444444//subscriptions/44444444-4444-4444-4444-444444444444/resourcegroups/automation-rg/providers/microsoft.automation/automationaccounts/testaccount/jobs/e5f6a7b8-c9d0-1234-ef01-444444444444 | 5.5.5.5 | denied 403 | 2025-12-22T14:00:00Z"},
		{"StorageAccount.SharedKeyAccessEnabled", "Shared Key Access Enabled", "User /denethor@lotr.com |  | Microsoft.Storage/storageAccounts/write true | microsoft.storage/storageaccounts " + group1 + "myresourcegroup/providers/microsoft.storage/storageaccounts/mystorageaccount | 1.1.1.1 | allowed 200 | 2024-12-17T10:30:00Z"},
		{"StorageAccount.BlobSoftDeleteDisabled", "Soft Delete Disabled", " |  | Microsoft.Storage/storageAccounts/blobServices/write true | microsoft.storage/storageaccounts/blobservices " + group1 + "myresourcegroup/providers/microsoft.storage/storageaccounts/mystorageaccount/blobservices/default | 1.1.1.1 | allowed 0 | 2024-12-17T10:30:00Z"},
		{"Storage.SASTokenExternalAccess", "SAS Token from External IP - Read Operation", " | static-token | GetBlob false | microsoft.storage/storageaccounts/objects //criticaldata001/backups/data.zip | 8.8.8.8 | allowed 200 | 2025-01-28T15:30:00Z"},
		{"Storage.SASTokenExternalAccess", "SAS Token from Internal IP", " | static-token | PutBlob true | microsoft.storage/storageaccounts/objects //internaldata/logs/app.log | 10.158.74.16 | allowed 201 | 2025-01-28T16:30:00Z"},
		{"Storage.SASTokenExternalAccess", "Storage Account Key Auth from External IP", " | api-key | GetBlob false | microsoft.storage/storageaccounts/objects //publicdata/downloads/file.pdf | 9.9.9.9 | allowed 200 | 2025-01-28T17:00:00Z"},
		{"Storage.SASTokenExternalAccess", "Failed SAS Token Access", " | static-token | GetBlob false | microsoft.storage/storageaccounts/objects //securedata/secrets/key.txt | 4.4.4.4 | denied 403 | 2025-01-28T17:30:00Z"},
	}
	got := make(map[string]string)
	for _, l := range connectortest.Labelled(t, "azure_activity.jsonl") {
		e := connectortest.Decode(t, azure.Activity{}, string(l.Log))
		got[strings.TrimPrefix(l.Rule, "Azure.MonitorActivity.")+l.Case] = fmt.Sprintf("%s | %s | %s %t | %s | %s | %s %d | %s",
			written(e.Actor), e.CredentialType, e.Action, e.Write, written(e.Resource), e.Address, e.Outcome, e.Code, e.Time.Format(time.RFC3339))
	}
	for _, test := range tests {
		if g := got[test.rule+test.name]; g != test.want {
			t.Errorf("%s, %s:\n got %s\nwant %s", test.rule, test.name, g, test.want)
		}
	}
}

const (
	streamed = `{"time":"2024-05-01T10:00:00.0000000Z","resourceId":"/SUBSCRIPTIONS/S1/RESOURCEGROUPS/RG","operationName":"MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE",
"category":"Administrative","resultType":"Success","resultSignature":"Succeeded.Created","correlationId":"c","tenantId":"T1","callerIpAddress":"10.0.0.1",
"identity":{"authorization":{"scope":"/subscriptions/s1","evidence":{"role":"Owner","roleAssignmentId":"A1","roleAssignmentScope":"/subscriptions/s1"}},
"claims":{"appid":"C1","idtyp":"user","http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn":"Ann@Example.com","uti":"token1","http://schemas.microsoft.com/identity/claims/tenantid":"T1"}}}`

	fromAPI = `{"eventDataId":"e1","eventTimestamp":"2024-05-01T10:00:00Z","caller":"ann@example.com","operationName":{"value":"MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE"},
"category":{"value":"Administrative"},"status":{"value":"Succeeded"},"subStatus":{"value":"Created"},"resourceId":"/subscriptions/s1/resourceGroups/rg","tenantId":"t1",
"httpRequest":{"clientIpAddress":"10.0.0.1"},"claims":{"appid":"c1","uti":"token1"},"authorization":{"evidence":{"roleAssignmentId":"a1","roleAssignmentScope":"/subscriptions/s1"}}}`

	fromStore = `{"TimeGenerated":"2024-05-01T10:00:00Z","TenantId":"workspace","OperationNameValue":"MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE","CategoryValue":"Administrative",
"ActivityStatusValue":"Success","Caller":"ann@example.com","CallerIpAddress":"10.0.0.1","_ResourceId":"/subscriptions/s1/resourcegroups/rg","EventDataId":"e2",
"Authorization":"{\"evidence\":{\"roleAssignmentId\":\"a1\",\"roleAssignmentScope\":\"/subscriptions/s1\"}}",
"Claims":"{\"appid\":\"c1\",\"uti\":\"token1\",\"http://schemas.microsoft.com/identity/claims/tenantid\":\"t1\"}"}`
)

// TestForms reads the same event in each form in which Azure gives it.
func TestForms(t *testing.T) {
	for name, raw := range map[string]string{
		"streamed": streamed, "file": `{"records":[` + streamed + `]}`, "list": `[` + streamed + `]`,
		"API": fromAPI, "API's list": `{"value":[` + fromAPI + `]}`, "Log Analytics": fromStore,
	} {
		e := connectortest.Decode(t, azure.Activity{}, raw)
		got := fmt.Sprintf("%s %s %v %s %s %s %s %s %s %t", e.Native, written(e.Actor), e.Chain, e.Credential, e.Action, written(e.Resource), written(e.Binding), e.Address, e.Outcome, e.Time.IsZero())
		const want = "t1 User /ann@example.com [Application t1/c1] token1 MICROSOFT.AUTHORIZATION/ROLEASSIGNMENTS/WRITE microsoft.resources/resourcegroups s1//subscriptions/s1/resourcegroups/rg RoleAssignment /subscriptions/s1/a1 10.0.0.1 allowed false"
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestActors tells who acted, from claims, callers and storage's requester.
func TestActors(t *testing.T) {
	const mirid = `"xms_mirid":"/subscriptions/s1/resourcegroups/rg/providers/Microsoft.Compute/virtualMachines/VM1"`
	tests := []struct{ name, rest, actor, kind, bound string }{
		{"application", `"identity":{"claims":{"appid":"c1","idtyp":"app","http://schemas.microsoft.com/identity/claims/objectidentifier":"o1"}}`, "Application t1/c1", "application", ""},
		{"of another tenant", `"identity":{"claims":{"appid":"c1","http://schemas.microsoft.com/identity/claims/tenantid":"t2"}}`, "Application t2/c1", "application", ""},
		{"managed identity", `"identity":{"claims":{"appid":"c1",` + mirid + `}}`, "Application t1/c1", "service-account", "microsoft.compute/virtualmachines s1//subscriptions/s1/resourcegroups/rg/providers/microsoft.compute/virtualmachines/vm1"},
		{"Key Vault", `"identity":{"claim":{"appid":"c1"}}`, "Application t1/c1", "application", ""},
		{"storage", `"identity":{"type":"OAuth","requester":{"appId":"c1","upn":"ann@example.com"}}`, "User /ann@example.com", "human", ""},
		{"object", `"caller":"11111111-2222-3333-4444-555555555555"`, "ServicePrincipal t1/11111111-2222-3333-4444-555555555555", "", ""},
		{"nobody", `"caller":""`, "", "", ""},
	}
	for _, test := range tests {
		e := connectortest.Decode(t, azure.Activity{}, `{"category":"Administrative","operationName":"a/b/write","tenantId":"t1",`+test.rest+`}`)
		if written(e.Actor) != test.actor || string(e.Type) != test.kind || written(e.Bound) != test.bound {
			t.Errorf("%s: %q %q bound to %q", test.name, written(e.Actor), e.Type, written(e.Bound))
		}
	}
}

const (
	spSignIn = `{"time":"2024-05-01T10:00:01Z","resourceId":"/tenants/T1/providers/Microsoft.aadiam","operationName":"Sign-in activity","category":"ServicePrincipalSignInLogs",
"tenantId":"T1","resultType":"0","callerIpAddress":"10.0.0.1","properties":{"id":"s1","createdDateTime":"2024-05-01T10:00:00Z","appId":"C1","servicePrincipalId":"O1",
"servicePrincipalCredentialKeyId":"K1","servicePrincipalCredentialThumbprint":"","ipAddress":"10.0.0.1","status":{"errorCode":0},"resourceId":"R1","resourceDisplayName":"Graph",
"uniqueTokenIdentifier":"token1"}}`

	userSignIn = `{"time":"2024-05-01T10:00:01Z","operationName":"Sign-in activity","category":"NonInteractiveUserSignInLogs","tenantId":"T1","resultType":"50126",
"resultDescription":"x","callerIpAddress":"2001:db8::1","properties":{"id":"s2","createdDateTime":"2024-05-01T10:00:00Z","userPrincipalName":"Ann@Example.com","userId":"U1","appId":"C1",
"ipAddress":"2001:db8::1","status":{"errorCode":50126,"failureReason":"Invalid username or password."},"sessionId":"sess1","uniqueTokenIdentifier":"token2","userAgent":"curl"}}`
)

func TestSignIn(t *testing.T) {
	e := connectortest.Decode(t, azure.SignIn{}, spSignIn)
	got := fmt.Sprintf("%s %s %s %s %s %s %s %s %s %s %s", e.ID, e.Native, written(e.Actor), e.Principal, e.Credential, e.CredentialType, e.Minted.Credential, written(e.Minted.For), written(e.Resource), e.Address, e.Outcome)
	if want := "s1 t1 Application t1/c1 O1 K1 client-secret token1 Application t1/c1 Application t1/r1 10.0.0.1 allowed"; got != want {
		t.Errorf("service principal:\n got %s\nwant %s", got, want)
	}
	e = connectortest.Decode(t, azure.SignIn{}, userSignIn)
	got = fmt.Sprintf("%s %s %s %v %s %q %s %s %s", e.ID, written(e.Actor), e.Type, e.Chain, e.Credential, e.Minted.Credential, e.Address, e.Outcome, e.Reason)
	if want := `s2 User /ann@example.com human [Application t1/c1] sess1 "" 2001:db8::1 denied Invalid username or password.`; got != want {
		t.Errorf("user:\n got %s\nwant %s", got, want)
	}
	e = connectortest.Decode(t, azure.SignIn{}, `{"value":[{"id":"s3","createdDateTime":"2024-05-01T10:00:00Z","appId":"c1","userPrincipalName":"ann@example.com","conditionalAccessStatus":"success","status":{"errorCode":0},"resourceTenantId":"t1"}]}`)
	if e.ID != "s3" || e.Native != "t1" || e.Action != "Sign-in activity" || e.Outcome != remit.Allowed {
		t.Errorf("Graph: %+v", e.Activity)
	}
	e = connectortest.Decode(t, azure.SignIn{}, `{"TimeGenerated":"2024-05-01T10:00:00Z","Type":"AADManagedIdentitySignInLogs","TenantId":"workspace","AADTenantId":"t1","Category":"ManagedIdentitySignInLogs","Id":"s4","AppId":"c1","ServicePrincipalId":"o1","ResultType":"0","UniqueTokenIdentifier":"token3","IPAddress":"10.0.0.2"}`)
	if e.ID != "s4" || e.Native != "t1" || written(e.Actor) != "Application t1/c1" || e.Type != remit.ServiceAccount || e.Minted.Credential != "token3" || e.Address != "10.0.0.2" {
		t.Errorf("Log Analytics: %+v", e.Activity)
	}
}

const secretAdded = `{"time":"2024-05-01T10:00:00Z","resourceId":"/tenants/T1/providers/Microsoft.aadiam","operationName":"Update application – Certificates and secrets management ","category":"AuditLogs",
"tenantId":"T1","callerIpAddress":"10.0.0.1","properties":{"id":"d1","category":"ApplicationManagement","result":"success","activityDisplayName":"Update application – Certificates and secrets management ",
"activityDateTime":"2024-05-01T10:00:00.1234567Z","initiatedBy":{"user":{"id":"u1","userPrincipalName":"ann@example.com","ipAddress":"10.0.0.2"}},
"targetResources":[{"id":"o1","type":"Application","displayName":"app","modifiedProperties":[{"displayName":"KeyDescription",
"oldValue":"[\"[KeyIdentifier=aaaaaaaa-0000-0000-0000-000000000001,KeyType=Password,KeyUsage=Verify,DisplayName=old]\"]",
"newValue":"[\"[KeyIdentifier=aaaaaaaa-0000-0000-0000-000000000001,KeyType=Password,KeyUsage=Verify,DisplayName=old]\",\"[KeyIdentifier=aaaaaaaa-0000-0000-0000-000000000002,KeyType=Password,KeyUsage=Verify,DisplayName=new]\"]"}]}],
"additionalDetails":[{"key":"User-Agent","value":"portal"},{"key":"AppId","value":"cccccccc-0000-0000-0000-000000000003"}]}}`

func TestDirectory(t *testing.T) {
	e := connectortest.Decode(t, azure.Directory{}, secretAdded)
	got := fmt.Sprintf("%s %s %s %s %s %s %s %s %s %t", e.ID, e.Native, written(e.Actor), e.Minted.Credential, e.Minted.Type, written(e.Minted.For), written(e.Resource), e.Address, e.UserAgent, e.Write)
	const want = "d1 t1 User /ann@example.com aaaaaaaa-0000-0000-0000-000000000002 client-secret Application t1/cccccccc-0000-0000-0000-000000000003 Application t1/cccccccc-0000-0000-0000-000000000003 10.0.0.2 portal true"
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	e = connectortest.Decode(t, azure.Directory{}, `{"id":"d2","activityDisplayName":"Add member to role","activityDateTime":"2024-05-01T10:00:00Z","result":"failure","resultReason":"Insufficient privileges",
	"initiatedBy":{"app":{"servicePrincipalId":"o1","displayName":"x"}},"targetResources":[{"id":"u1","type":"User","userPrincipalName":"Bob@example.com"}]}`)
	if e.ID != "d2" || written(e.Actor) != "ServicePrincipal /o1" || written(e.Resource) != "User /bob@example.com" || e.Outcome != remit.Denied {
		t.Errorf("Graph: %+v", e.Activity)
	}
}

// TestRecognizes gives each source its events and no others.
func TestRecognizes(t *testing.T) {
	all := []connector.Decoder{azure.Activity{}, azure.SignIn{}, azure.Directory{}}
	for i, raw := range []string{streamed, spSignIn, secretAdded} {
		for j, d := range all {
			if got := d.Recognizes(fastjson.MustParse(`{"records":[` + raw + `]}`)); got != (i == j) {
				t.Errorf("event %d: %s says %t", i, d.Source().Name, got)
			}
		}
	}
	for _, raw := range []string{`{}`, `[]`, `"x"`, `{"Records":[{"eventSource":"s3.amazonaws.com"}]}`, `{"operationName":"x"}`} {
		for _, d := range all {
			if d.Recognizes(fastjson.MustParse(raw)) {
				t.Errorf("%s takes %s", d.Source().Name, raw)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	var in connector.Interner
	for _, d := range []connector.Decoder{azure.Activity{}, azure.SignIn{}, azure.Directory{}} {
		for _, raw := range []string{`[]`, `1`, `{}`, `{"category":"x"}`} {
			var e connector.Event
			if err := d.Decode(fastjson.MustParse(raw), &in, &e); remit.KindOf(err) != remit.Invalid {
				t.Errorf("%s, %s: %v", d.Source().Name, raw, err)
			}
		}
	}
	var e connector.Event
	if err := (azure.Activity{}).Decode(fastjson.MustParse(`{"operationName":"a/b/write","resultType":"Start"}`), &in, &e); !errors.Is(err, connector.ErrIgnored) {
		t.Errorf("the start of an operation: %v", err)
	}
}

// TestStrip leaves no secret in an event, and what is none as it is.
func TestStrip(t *testing.T) {
	for _, raw := range []string{
		`{"operationName":"kept","uri":"https://kept.blob.core.windows.net/c/b?sv=2021&sig=S1S1S1S1"}`,
		`{"operationName":"kept","properties":{"requestbody":"{\"properties\":{\"administratorLoginPassword\":\"S1\",\"name\":\"x\"}}"}}`,
		`{"operationName":"kept","properties":{"requestbody":"{\"properties\":{\"administratorLoginPassword\":\"S1"}}`,
		`{"operationName":"Microsoft.Web/sites/config/write","level":"kept","properties":{"requestbody":"{\"properties\":{\"ANY\":\"S1\"}}"}}`,
		`{"operationName":{"value":"Microsoft.Storage/storageAccounts/listKeys/action"},"level":"kept","properties":{"responseBody":"{\"keys\":[{\"keyName\":\"key1\",\"value\":\"S1\"}]}"}}`,
		`{"operationName":"Microsoft.Resources/deployments/write","level":"kept","properties":{"requestbody":"{\"properties\":{\"parameters\":{\"adminPassword\":{\"value\":\"S1\"}}}}"}}`,
		`{"operationName":"kept","properties":{"x":"DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S1S1==;EndpointSuffix=core"}}`,
		`{"operationName":"kept","identity":{"claims":{"raw":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.S1S1S1S1"}}}`,
	} {
		v := fastjson.MustParse(raw)
		if !(azure.Activity{}).Strip(v, &fastjson.Arena{}) {
			t.Errorf("nothing was stripped of %s", raw)
		}
		if out := string(connector.AppendJSON(nil, v)); strings.Contains(out, "S1") || !strings.Contains(out, "kept") {
			t.Errorf("stripped is %s", out)
		}
	}
	v := fastjson.MustParse(secretAdded)
	if (azure.Directory{}).Strip(v, &fastjson.Arena{}) {
		t.Errorf("an event without secrets became %s", v)
	}
}

// Fuzz: nothing that comes from outside makes a decoder panic, and an event
// keeps its ID when it is stripped.
func Fuzz(f *testing.F) {
	connectortest.FuzzDecoder(
		f, []connector.Decoder{azure.Activity{}, azure.SignIn{}, azure.Directory{}},
		streamed, fromAPI, fromStore, spSignIn, userSignIn, secretAdded,
		`{"records":[{"operationName":"a/secrets/write","properties":{"requestbody":"{\"value\":\"x"}}]}`,
	)
}

func BenchmarkDecoder(b *testing.B) {
	b.Run("activity", func(b *testing.B) { connectortest.BenchmarkDecoder(b, azure.Activity{}, streamed) })
	b.Run("signin", func(b *testing.B) { connectortest.BenchmarkDecoder(b, azure.SignIn{}, spSignIn) })
	b.Run("directory", func(b *testing.B) { connectortest.BenchmarkDecoder(b, azure.Directory{}, secretAdded) })
}
