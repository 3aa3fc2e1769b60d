package main

import (
	"strings"

	"remit"
	"remit/connector"
	"remit/connector/anthropic"
	"remit/connector/aws"
	"remit/connector/azure"
	"remit/connector/gcp"
	"remit/connector/github"
	"remit/connector/kubernetes"
	"remit/connector/ocsf"
	"remit/connector/okta"
	"remit/connector/openai"
	"remit/connector/openbao"
	"remit/detect/sigma"
)

// decoders are the sources of events that Remit reads, in the order in which an
// event is tried on them.
var decoders = []connector.Decoder{
	kubernetes.Audit,
	aws.CloudTrail{},
	gcp.Audit{},
	azure.Activity{},
	azure.SignIn{},
	azure.Directory{},
	github.Audit,
	okta.SystemLog,
	openbao.Audit,
	anthropic.Activity,
	openai.Audit,
	ocsf.Events,
}

// fieldAliases are the names that rules have for fields which the raw events
// call otherwise.
var fieldAliases = map[sigma.Logsource]map[string]string{
	{Product: "kubernetes"}: kubernetes.FieldAliases,
	{Product: "aws"}:        aws.FieldAliases,
	{Product: "gcp"}:        gcp.FieldAliases,
	{Product: "azure"}:      azure.FieldAliases,
	{Product: "github"}:     github.FieldAliases,
	{Product: "okta"}:       okta.FieldAliases,
	{Product: "openbao"}:    openbao.FieldAliases,
	{Product: "vault"}:      openbao.FieldAliases,
	{Product: "anthropic"}:  anthropic.FieldAliases,
	{Product: "openai"}:     openai.FieldAliases,
	{Product: "ocsf"}:       ocsf.FieldAliases,
}

// fields are the first keys of raw events by the product of their logsource; of
// products that are not here, such as GitHub, each event has keys of its own.
var fields = map[string][]string{
	"kubernetes": kubernetes.Fields,
	"aws":        aws.Fields,
	"gcp":        gcp.Fields,
	"okta":       okta.Fields,
}

// decoderNamed returns the decoder of a source, nil for "".
func decoderNamed(name string) (connector.Decoder, error) {
	if name == "" {
		return nil, nil
	}
	for _, d := range decoders {
		if d.Source().Name == name {
			return d, nil
		}
	}
	return nil, remit.Errorf(remit.Invalid, "", "no source %q: use %s", name, strings.Join(sourceNames(), ", "))
}

func sourceNames() (names []string) {
	for _, d := range decoders {
		names = append(names, d.Source().Name)
	}
	return names
}
