package aws

import (
	"bytes"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// arn is an Amazon Resource Name in its parts:
// arn:partition:service:region:account:resource. It refers to what it was read
// from.
type arn struct {
	service, account, resource []byte
}

// parseARN returns the zero arn for anything else.
func parseARN(b []byte) arn {
	if !bytes.HasPrefix(b, []byte("arn:")) {
		return arn{}
	}
	var parts [5][]byte
	rest := b
	for i := range parts {
		part, after, ok := bytes.Cut(rest, []byte{':'})
		if !ok {
			return arn{}
		}
		parts[i], rest = part, after
	}
	return arn{service: parts[2], account: parts[4], resource: rest}
}

// cut returns the resource's type and the rest: "role" and "path/name".
func (a arn) cut() (kind, rest []byte) {
	if i := bytes.IndexAny(a.resource, "/:"); i >= 0 {
		return a.resource[:i], a.resource[i+1:]
	}
	return nil, a.resource
}

func (a arn) is(kind string) bool {
	k, _ := a.cut()
	return string(k) == kind
}

func (a arn) rest() []byte {
	_, rest := a.cut()
	return rest
}

// last returns the name of a resource of that type, without its path; nil when
// it is of another type.
func (a arn) last(kind string) []byte {
	k, rest := a.cut()
	if string(k) != kind {
		return nil
	}
	return rest[bytes.LastIndexByte(rest, '/')+1:]
}

// identity returns whom the ARN names; zero when it names no identity.
func (a arn) identity(in *connector.Interner) remit.Ref {
	ref := remit.Ref{Namespace: in.String(a.account)}
	kind, rest := a.cut()
	switch {
	case string(kind) == "role":
		ref.Kind, ref.Name = kindRole, in.String(a.last("role"))
	case string(kind) == "assumed-role":
		name, _, _ := bytes.Cut(rest, []byte{'/'})
		ref.Kind, ref.Name = kindRole, in.String(name)
	case string(kind) == "user":
		ref.Kind, ref.Name = kindUser, in.String(a.last("user"))
	case string(kind) == "federated-user":
		ref.Kind, ref.Name = kindFederated, in.String(rest)
	case string(a.resource) == "root":
		ref.Kind, ref.Name = kindRoot, "root"
	default:
		return remit.Ref{}
	}
	return ref
}

// ref returns the resource that the ARN names: of kind "service:Type", where
// Type is the ARN's own word in capitals ("ec2:Instance", "logs:LogGroup"), in
// the account's namespace.
func (a arn) ref(account []byte, in *connector.Interner) remit.Ref {
	if len(a.account) > 0 {
		account = a.account
	}
	if string(a.service) == "iam" || string(a.service) == "sts" {
		if ref := a.identity(in); ref.Name != "" {
			ref.Namespace = in.String(account)
			return ref
		}
	}
	ref := remit.Ref{Namespace: in.String(account)}
	kind, rest := a.cut()
	switch string(a.service) {
	case "s3": // no type: bucket or bucket/key
		ref.Kind, ref.Name = "s3:Bucket", name(a.resource, in)
		if bytes.IndexByte(a.resource, '/') >= 0 {
			ref.Kind = "s3:Object"
		}
		return ref
	case "sns":
		ref.Kind, ref.Name = "sns:Topic", name(a.resource, in)
		return ref
	case "sqs":
		ref.Kind, ref.Name = "sqs:Queue", name(a.resource, in)
		return ref
	case "iam":
		rest = rest[bytes.LastIndexByte(rest, '/')+1:]
	}
	ref.Kind, ref.Name = kindOf(a.service, kind, in), name(rest, in)
	return ref
}

// kindOf writes "service:Type": "log-group" becomes "LogGroup".
func kindOf(service, kind []byte, in *connector.Interner) string {
	var room [96]byte
	b := append(room[:0], service...)
	if len(kind) > 0 {
		b = append(b, ':')
	}
	up := true
	for _, c := range kind {
		if c == '-' || c == '_' {
			up = true
			continue
		}
		if up && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b, up = append(b, c), false
	}
	return in.String(b)
}

// name interns short names; long ones are mostly keys of objects, which do not
// come again.
func name(b []byte, in *connector.Interner) string {
	if len(b) > 64 {
		return string(b)
	}
	return in.String(b)
}

// resource tells what the event is about: the most specific of its resources,
// or else what its parameters name.
func (d *decoding) resource() {
	e := d.event
	if ref := d.listed(); ref.Name != "" {
		e.Resource = ref
		return
	}
	for _, from := range [...]*fastjson.Value{d.request, d.response} {
		if from == nil || from.Type() != fastjson.TypeObject {
			continue
		}
		if ref := d.parameter(from); ref.Name != "" {
			e.Resource = ref
			return
		}
	}
	if len(d.name) > 0 && string(d.service) == "iam" && aboutSelf(d.name) {
		e.Resource = e.Actor
	}
}

// aboutSelf says whether a call of IAM without a user name is about the caller.
func aboutSelf(name []byte) bool {
	switch string(name) {
	case "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "ListAccessKeys", "ChangePassword", "PasswordUpdated",
		"GetUser", "CreateServiceSpecificCredential", "UploadSigningCertificate", "UpdateLoginProfile":
		return true
	}
	return false
}

func (d *decoding) listed() remit.Ref {
	var best, owner []byte
	for _, r := range d.resources.GetArray() {
		// Network activity events write it in lower case.
		b := either(r, "ARN", "arn")
		if len(best) == 0 || len(b) > len(best) && bytes.HasPrefix(b, best) {
			if len(parseARN(b).resource) > 0 {
				best, owner = b, r.GetStringBytes("accountId")
			}
		}
	}
	if len(best) == 0 {
		return remit.Ref{}
	}
	if len(owner) == 0 {
		owner = text(d.account)
	}
	return parseARN(best).ref(owner, d.in)
}

// parameter is a parameter that names a resource of a kind. Dots go into
// objects and the first items of lists.
type parameter struct {
	name, kind string
}

// parameters lists, for each service, the parameters that name what a call is
// about, the most telling first. Values that are ARNs tell their kind themselves.
var parameters = map[string][]parameter{
	"iam": {
		{"roleName", kindRole},
		{"userName", kindUser},
		{"groupName", "iam:Group"},
		{"policyArn", ""},
		{"instanceProfileName", "iam:InstanceProfile"},
		{"policyName", "iam:Policy"},
		{"openIDConnectProviderArn", ""},
		{"sAMLProviderArn", ""},
		{"serialNumber", ""},
		{"accountAlias", "iam:AccountAlias"},
	},
	"sts":            {{"roleArn", ""}, {"targetPrincipal", ""}, {"name", kindFederated}},
	"lambda":         {{"functionName", "lambda:Function"}, {"layerName", "lambda:Layer"}, {"resource", ""}},
	"kms":            {{"keyId", "kms:Key"}, {"targetKeyId", "kms:Key"}, {"aliasName", "kms:Alias"}, {"keyMetadata.arn", ""}},
	"secretsmanager": {{"secretId", "secretsmanager:Secret"}, {"name", "secretsmanager:Secret"}, {"arn", ""}},
	"ssm": {
		{"target", kindInstance},
		{"instanceId", kindInstance},
		{"instanceIds", kindInstance},
		{"name", "ssm:Parameter"},
		{"names", "ssm:Parameter"},
		{"documentName", "ssm:Document"},
		{"path", "ssm:Parameter"},
	},
	"ec2": {
		{"instanceId", kindInstance},
		{"instancesSet.items.instanceId", kindInstance},
		{"snapshotId", "ec2:Snapshot"},
		{"imageId", "ec2:Image"},
		{"volumeId", "ec2:Volume"},
		{"groupId", "ec2:SecurityGroup"},
		{"securityGroupId", "ec2:SecurityGroup"},
		{"networkAclId", "ec2:NetworkAcl"},
		{"routeTableId", "ec2:RouteTable"},
		{"subnetId", "ec2:Subnet"},
		{"vpcId", "ec2:Vpc"},
		{"internetGatewayId", "ec2:InternetGateway"},
		{"networkInterfaceId", "ec2:NetworkInterface"},
		{"keyName", "ec2:KeyPair"},
		{"launchTemplateId", "ec2:LaunchTemplate"},
		{"flowLogId", "ec2:FlowLog"},
		{"customerGatewayId", "ec2:CustomerGateway"},
		{"vpnConnectionId", "ec2:VpnConnection"},
		{"trafficMirrorTargetId", "ec2:TrafficMirrorTarget"},
		{"vpcPeeringConnectionId", "ec2:VpcPeeringConnection"},
	},
	"rds": {
		{"dBInstanceIdentifier", "rds:Db"},
		{"dBClusterIdentifier", "rds:Cluster"},
		{"dBSnapshotIdentifier", "rds:Snapshot"},
		{"dBClusterSnapshotIdentifier", "rds:ClusterSnapshot"},
		{"dBParameterGroupName", "rds:Pg"},
		{"dBSecurityGroupName", "rds:Secgrp"},
	},
	"dynamodb":       {{"tableName", "dynamodb:Table"}},
	"eks":            {{"clusterName", "eks:Cluster"}, {"name", "eks:Cluster"}},
	"ecs":            {{"service", "ecs:Service"}, {"taskDefinition", "ecs:TaskDefinition"}, {"family", "ecs:TaskDefinition"}, {"task", "ecs:Task"}, {"cluster", "ecs:Cluster"}},
	"ecr":            {{"repositoryName", "ecr:Repository"}},
	"cloudtrail":     {{"name", "cloudtrail:Trail"}, {"trailName", "cloudtrail:Trail"}, {"eventDataStore", ""}},
	"logs":           {{"logGroupName", "logs:LogGroup"}, {"logGroupIdentifier", "logs:LogGroup"}},
	"cloudformation": {{"stackName", "cloudformation:Stack"}, {"stackSetName", "cloudformation:Stackset"}},
	"guardduty":      {{"detectorId", "guardduty:Detector"}},
	"organizations":  {{"policyId", "organizations:Policy"}, {"accountId", kindAccount}, {"targetId", "organizations:Target"}},
	"route53":        {{"hostedZoneId", "route53:Hostedzone"}, {"id", "route53:Hostedzone"}},
	"sns":            {{"topicArn", ""}, {"name", "sns:Topic"}},
	"sqs":            {{"queueUrl", "sqs:Queue"}, {"queueName", "sqs:Queue"}},
	"codebuild":      {{"projectName", "codebuild:Project"}, {"name", "codebuild:Project"}},
	"bedrock":        {{"modelId", "bedrock:Model"}, {"agentId", "bedrock:Agent"}, {"guardrailIdentifier", "bedrock:Guardrail"}},
	"glue":           {{"databaseName", "glue:Database"}, {"name", "glue:Job"}},
	"cognito-idp":    {{"userPoolId", "cognito-idp:Userpool"}},
	"sso":            {{"permissionSetArn", ""}, {"instanceArn", ""}},
	"es":             {{"domainName", "es:Domain"}},
	"config":         {{"configurationRecorderName", "config:Recorder"}, {"deliveryChannelName", "config:DeliveryChannel"}, {"configRuleName", "config:ConfigRule"}},
	"wafv2":          {{"webACLArn", ""}, {"resourceArn", ""}, {"name", "wafv2:Webacl"}},
	"sagemaker":      {{"notebookInstanceName", "sagemaker:NotebookInstance"}},
	"ses":            {{"identity", "ses:Identity"}},
	"autoscaling":    {{"autoScalingGroupName", "autoscaling:AutoScalingGroup"}},
	"redshift":       {{"clusterIdentifier", "redshift:Cluster"}},
	"backup":         {{"backupVaultName", "backup:BackupVault"}},
	"acm":            {{"certificateArn", ""}},
}

// anyService are parameters of the same meaning everywhere.
var anyService = []parameter{{"resourceArn", ""}, {"resourceARN", ""}, {"arn", ""}, {"roleArn", ""}}

func (d *decoding) parameter(from *fastjson.Value) remit.Ref {
	account := d.event.Native
	if string(d.service) == "s3" || string(d.service) == "s3express" {
		bucket := from.GetStringBytes("bucketName")
		if len(bucket) == 0 {
			return remit.Ref{}
		}
		ref := remit.Ref{Kind: "s3:Bucket", Namespace: account, Name: d.in.String(bucket)}
		if key := from.GetStringBytes("key"); len(key) > 0 {
			b := make([]byte, 0, len(bucket)+1+len(key))
			b = append(append(append(b, bucket...), '/'), key...)
			ref.Kind, ref.Name = "s3:Object", name(b, d.in)
		}
		return ref
	}
	for _, list := range [...][]parameter{parameters[string(d.service)], anyService} {
		for _, p := range list {
			value := find(from, p.name)
			if len(value) == 0 || string(value) == hidden {
				continue
			}
			if a := parseARN(value); len(a.resource) > 0 {
				return a.ref([]byte(account), d.in)
			}
			if p.kind == "" {
				continue
			}
			switch string(d.service) {
			case "sqs": // a queue's URL ends in its name
				value = value[bytes.LastIndexByte(value, '/')+1:]
			case "ssm": // as ARNs write it
				value = bytes.TrimPrefix(value, []byte{'/'})
			}
			return remit.Ref{Kind: p.kind, Namespace: account, Name: name(value, d.in)}
		}
	}
	return remit.Ref{}
}

// find follows a dotted path, and takes the first item of a list on it.
func find(v *fastjson.Value, path string) []byte {
	for path != "" && v != nil {
		key := path
		path = ""
		for i := range len(key) {
			if key[i] == '.' {
				key, path = key[:i], key[i+1:]
				break
			}
		}
		v = v.Get(key)
		if v != nil && v.Type() == fastjson.TypeArray {
			v = v.Get("0")
		}
	}
	return text(v)
}
