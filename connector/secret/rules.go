package secret

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	ahocorasick "github.com/BobuSumisu/aho-corasick"
	"github.com/pelletier/go-toml/v2"
	"github.com/zricethezav/gitleaks/v8/config"

	"remit"
)

// rule is one way to recognise a secret.
type rule struct {
	id       string
	provider string // "" where the rule does not tell
	typ      remit.CredentialType
	re       *regexp.Regexp
	group    int // of the secret; 0: the first group that matched, or all
	entropy  float64
	keywords []string // lower case; at least one of them is in every match
	allow    []*config.Allowlist

	// named rules match a platform's or a secret's name, a separator and a
	// value of no distinctive shape: the name decides.
	named bool
	// settings says of each keyword whether it is (part of) a name, so that a
	// separator has to follow it in a match; see followed.
	settings map[string]bool
	// reach is how far behind the keyword a match goes before it is asked for
	// more text; 0 for the usual.
	reach int
	// ours are the package's own rules. They judge by themselves, and win
	// over gitleaks' where both match.
	ours  bool
	judge func(m match) (remit.CredentialType, string, bool)
}

// match is what a rule of our own judges: the text it matched, the line that it
// is in, and the groups.
type match struct {
	text, line, secret string
	groups             []string
}

type ruleSet struct {
	rules  []rule
	global []*config.Allowlist
	trie   *ahocorasick.Trie
	of     [][]wanted // pattern of the trie → rules
}

// wanted is a rule that a keyword calls for.
type wanted struct {
	rule    int32
	setting bool
}

// Parts of gitleaks' rules of the form NAME separator VALUE
// (cmd/generate/config/utils/generate.go: GenerateSemiGenericRegex).
const (
	namePrefix = `[\w.-]{0,50}?`
	nameSuffix = `(?:[ \t\w.-]{0,20})`
)

// compiled holds gitleaks' default rules and our own, compiled once a process.
//
// Only gitleaks' rule file and its parser (package config) are used, not its
// detector: that one brings archive formats, terminal colours and report writers
// with it (4.6 MB more in the binary), searches lines in quadratic time,
// walks its rules in random order and hands back the secrets with
// their lines. The file is decoded with go-toml and not, as gitleaks does it,
// with viper's global instance, so no global state is touched.
// gitleaks' package logging sets up a logger that writes to stderr; parsing the
// default rules logs at debug level only, which it drops.
var compiled = sync.OnceValues(func() (*ruleSet, error) {
	const op = "compile secret rules"
	var file config.ViperConfig
	if err := toml.Unmarshal([]byte(config.DefaultConfig), &file); err != nil {
		return nil, remit.Errorf(remit.Internal, op, "gitleaks' default rules: %w", err)
	}
	cfg, err := file.Translate()
	if err != nil {
		return nil, remit.Errorf(remit.Internal, op, "gitleaks' default rules: %w", err)
	}
	rs := &ruleSet{global: cfg.Allowlists}
	rs.rules = append(rs.rules, ownRules...)
	for _, r := range cfg.GetOrderedRules() {
		if r.Regex == nil || r.Path != nil || unused[r.RuleID] || len(r.Keywords) == 0 {
			continue
		}
		nr := rule{
			id: r.RuleID, provider: providerOf(r.RuleID), typ: typeOf(r.RuleID), re: r.Regex, group: r.SecretGroup,
			entropy: r.Entropy, keywords: r.Keywords, allow: r.Allowlists, settings: map[string]bool{},
		}
		expr := r.Regex.String()
		if name, _, ok := strings.Cut(expr, nameSuffix); ok && strings.Contains(name, namePrefix) {
			// The optional beginning of the name costs most of the time of
			// these rules and finds nothing; the scan puts it back.
			nr.named = true
			nr.re = regexp.MustCompile(strings.ReplaceAll(expr, namePrefix, ""))
			for _, k := range r.Keywords {
				k = strings.ToLower(k)
				nr.settings[k] = r.RuleID == genericRule || strings.Contains(strings.ToLower(name), k)
			}
		}
		if strings.HasPrefix(r.RuleID, "curl-") {
			nr.reach = curlReach
		}
		rs.rules = append(rs.rules, nr)
	}

	index := make(map[string]int)
	var patterns []string
	for i, r := range rs.rules {
		for _, k := range r.keywords {
			k = strings.ToLower(k)
			p, ok := index[k]
			if !ok {
				p = len(patterns)
				index[k] = p
				patterns = append(patterns, k)
				rs.of = append(rs.of, nil)
			}
			if w := (wanted{int32(i), r.settings[k]}); !slices.Contains(rs.of[p], w) {
				rs.of[p] = append(rs.of[p], w)
			}
		}
	}
	rs.trie = ahocorasick.NewTrieBuilder().AddStrings(patterns).Build()
	return rs, nil
})

// unused are the rules of gitleaks that find no secret, or that something in
// this package does better.
var unused = map[string]bool{
	// Documents, which their own parsers read.
	"private-key": true, "jwt": true, "jwt-base64": true, "kubernetes-secret-yaml": true, "pkcs12-file": true,
	// Public identifiers, which open nothing.
	"adobe-client-id": true, "asana-client-id": true, "bitbucket-client-id": true, "discord-client-id": true,
	"linkedin-client-id": true, "looker-client-id": true, "messagebird-client-id": true, "plaid-client-id": true,
	"alibaba-access-key-id": true, "sendbird-access-id": true, "sumologic-access-id": true,
	"flutterwave-public-key": true, "mailgun-pub-key": true, "lob-pub-api-key": true, "new-relic-user-api-id": true,
	"new-relic-browser-api-token": true, "mapbox-api-token": true,
}

// providers maps the beginning of a rule's id to the platform that accepts the
// secret; the longest beginning wins.
var providers = map[string]string{
	"1password": "1password", "adafruit": "adafruit", "adobe": "adobe", "age": "age", "airtable": "airtable",
	"algolia": "algolia", "alibaba": "alibaba", "anthropic": "anthropic", "artifactory": "jfrog", "asana": "asana",
	"atlassian": "atlassian", "authress": "authress", "aws": "aws", "azure": "azure", "beamer": "beamer",
	"bitbucket": "bitbucket", "bittrex": "bittrex", "cisco-meraki": "cisco-meraki", "clickhouse": "clickhouse",
	"clojars": "clojars", "cloudflare": "cloudflare", "codecov": "codecov", "cohere": "cohere", "coinbase": "coinbase",
	"confluent": "confluent", "contentful": "contentful", "curl-auth": "", "databricks": "databricks",
	"datadog": "datadog", "defined-networking": "defined-networking", "digitalocean": "digitalocean",
	"discord": "discord", "doppler": "doppler", "droneci": "drone", "dropbox": "dropbox", "duffel": "duffel",
	"dynatrace": "dynatrace", "easypost": "easypost", "etsy": "etsy", "facebook": "facebook", "fastly": "fastly",
	"finicity": "finicity", "finnhub": "finnhub", "flickr": "flickr", "flutterwave": "flutterwave", "flyio": "fly.io",
	"frameio": "frame.io", "freemius": "freemius", "freshbooks": "freshbooks", "gcp": "gcp", "generic": "",
	"github": "github", "gitlab": "gitlab", "gitter": "gitter", "gocardless": "gocardless", "grafana": "grafana",
	"harness": "harness", "hashicorp-tf": "terraform", "heroku": "heroku", "hubspot": "hubspot",
	"huggingface": "huggingface", "infracost": "infracost", "intercom": "intercom", "intra42": "intra42",
	"jfrog": "jfrog", "kraken": "kraken", "kucoin": "kucoin", "launchdarkly": "launchdarkly", "linear": "linear",
	"linkedin": "linkedin", "lob": "lob", "looker": "looker", "mailchimp": "mailchimp", "mailgun": "mailgun",
	"mattermost": "mattermost", "maxmind": "maxmind", "messagebird": "messagebird", "microsoft-teams": "microsoft",
	"netlify": "netlify", "new-relic": "new-relic", "notion": "notion", "npm": "npm", "nytimes": "nytimes",
	"octopus-deploy": "octopus-deploy", "okta": "okta", "openai": "openai", "openshift": "openshift",
	"perplexity": "perplexity", "plaid": "plaid", "planetscale": "planetscale", "postman": "postman",
	"prefect": "prefect", "privateai": "privateai", "pulumi": "pulumi", "pypi": "pypi", "rapidapi": "rapidapi",
	"readme": "readme", "rubygems": "rubygems", "scalingo": "scalingo", "sendbird": "sendbird",
	"sendgrid": "sendgrid", "sendinblue": "brevo", "sentry": "sentry", "settlemint": "settlemint",
	"shippo": "shippo", "shopify": "shopify", "sidekiq": "sidekiq", "slack": "slack", "snyk": "snyk",
	"sonar": "sonar", "sourcegraph": "sourcegraph", "square": "square", "squarespace": "squarespace",
	"stripe": "stripe", "sumologic": "sumologic", "telegram": "telegram", "travisci": "travis-ci",
	"twilio": "twilio", "twitch": "twitch", "twitter": "twitter", "typeform": "typeform", "vault": "vault",
	"yandex": "yandex", "zendesk": "zendesk",
}

func providerOf(id string) string {
	for end := len(id); end > 0; end = strings.LastIndexByte(id[:end], '-') {
		if p, ok := providers[id[:end]]; ok {
			return p
		}
	}
	return ""
}

// typeOf tells what kind of credential a rule of gitleaks finds.
func typeOf(id string) remit.CredentialType {
	switch id {
	case "github-app-token", "gitlab-cicd-job-token", "dropbox-short-lived-api-token",
		"aws-amazon-bedrock-api-key-short-lived", "slack-config-access-token":
		return remit.ShortLivedToken
	case "vault-service-token", "vault-batch-token", "openshift-user-token", "gitlab-session-cookie", "curl-auth-header":
		return remit.StaticToken
	case "curl-auth-user", "planetscale-password", "sidekiq-secret", "sidekiq-sensitive-url":
		return remit.Password
	case "age-secret-key":
		return remit.PrivateKey
	}
	if strings.HasSuffix(id, "-client-secret") {
		return remit.ClientSecret
	}
	return remit.APIKey
}

// schemes maps the scheme of an URL to the platform that its password opens.
var schemes = map[string]string{
	"postgres": "postgres", "postgresql": "postgres", "postgis": "postgres", "cockroachdb": "cockroachdb",
	"mysql": "mysql", "mysql2": "mysql", "mysqlx": "mysql", "mariadb": "mariadb", "mongodb": "mongodb",
	"mongodb+srv": "mongodb", "redis": "redis", "rediss": "redis", "valkey": "valkey", "amqp": "rabbitmq",
	"amqps": "rabbitmq", "sqlserver": "sqlserver", "mssql": "sqlserver", "oracle": "oracle", "clickhouse": "clickhouse",
	"nats": "nats", "tls": "nats", "kafka": "kafka", "elasticsearch": "elasticsearch", "ldap": "ldap", "ldaps": "ldap",
	"smtp": "smtp", "smtps": "smtp", "imap": "imap", "imaps": "imap", "ftp": "ftp", "ftps": "ftp", "sftp": "sftp",
	"ssh": "ssh", "git": "git", "mqtt": "mqtt", "mqtts": "mqtt", "neo4j": "neo4j", "bolt": "neo4j",
	"snowflake": "snowflake", "cassandra": "cassandra", "couchdb": "couchdb", "memcached": "memcached",
	"rtsp": "rtsp", "socks5": "proxy",
}

// hosts maps hosts of http URLs to their platform.
var hosts = map[string]string{
	"github.com": "github", "gitlab.com": "gitlab", "bitbucket.org": "bitbucket", "pypi.org": "pypi",
	"registry.npmjs.org": "npm", "hub.docker.com": "docker", "ghcr.io": "github",
}

// curlReach is that of the rules for command lines of curl, which go over
// several lines.
const curlReach = 2048

const quotes = `'"<>` + "`"

// ownRules find what gitleaks does not look for: passwords within URLs and
// connection strings, and keys that only their names give away.
var ownRules = []rule{
	{
		// RFC 3986, section 3.2.1: scheme://user:password@host.
		id: "url-password", ours: true, typ: remit.Password, group: 3, keywords: []string{"://"}, reach: 768,
		re: regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]{1,30})://([^\s/?#:@` + quotes + `]{0,128}):([^\s/?#` + quotes + `]{1,384})@([^\s/?#@:,` + quotes + `]{1,255})`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			scheme, _, _ := strings.Cut(strings.ToLower(m.groups[1]), "+")
			provider, ok := schemes[scheme]
			if !ok {
				provider = hosts[strings.ToLower(m.groups[4])]
			}
			return remit.Password, provider, !placeholder(m.secret)
		},
	},
	{
		// go-sql-driver/mysql: user:password@tcp(host)/db.
		id: "mysql-dsn", ours: true, typ: remit.Password, provider: "mysql", group: 1, keywords: []string{"@tcp(", "@unix("},
		re: regexp.MustCompile(`[\w.%-]{1,64}:([^\s@/` + quotes + `]{1,256})@(?:tcp|unix)\(`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			return remit.Password, "mysql", !placeholder(m.secret)
		},
	},
	{
		// libpq, ADO.NET, ODBC: host=… user=… password=….
		id: "connection-string", ours: true, settings: map[string]bool{"password": true, "pwd": true}, typ: remit.Password, group: 1, keywords: []string{"password", "pwd"},
		re: regexp.MustCompile(`(?i)(?:^|[;\s?&` + quotes + `])(?:password|pwd|sslpassword)[ \t]{0,4}=[ \t]{0,4}([^;\s&` + quotes + `]{3,256})`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			if placeholder(m.secret) || !connection.MatchString(m.line) || strings.ContainsAny(m.secret, "(){}[]") {
				return "", "", false
			}
			provider := ""
			line := strings.ToLower(m.line)
			switch {
			case strings.Contains(line, "dbname=") || strings.Contains(line, "sslmode=") || strings.Contains(line, "postgresql:"):
				provider = "postgres"
			case strings.Contains(line, "initial catalog") || strings.Contains(line, "sqlserver:"):
				provider = "sqlserver"
			case strings.Contains(line, "mysql:"):
				provider = "mysql"
			}
			return remit.Password, provider, true
		},
	},
	{
		// Azure storage and service bus connection strings.
		id: "azure-shared-key", ours: true, typ: remit.APIKey, provider: "azure", group: 1,
		keywords: []string{"accountkey", "sharedaccesskey"}, entropy: 3.5,
		re: regexp.MustCompile(`(?i:AccountKey|SharedAccessKey)[ \t]{0,2}=[ \t]{0,2}([A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			return remit.APIKey, "azure", true
		},
	},
	{
		// The secret half of an AWS access key has no shape of its own: 40
		// characters of base64; its name tells.
		id: awsSecretRule, ours: true, settings: map[string]bool{"secret": true}, typ: remit.APIKey, provider: "aws", group: 1, entropy: 4,
		keywords: []string{"secret"},
		re:       regexp.MustCompile(`(?i)secret[_.-]?(?:access)?[_.-]?key(?:[_.-]\w{1,16})?['"]?[ \t]{0,4}(?:=|:|=>|:=)[ \t]{0,4}['"]?([a-z0-9/+]{40})(?:[^a-z0-9/+=]|$)`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			name := strings.ToLower(m.text[:len(m.text)-40])
			// A bare "secretKey" of 40 hexadecimal digits is anything.
			return remit.APIKey, "aws", !hexadecimal.MatchString(m.secret) &&
				(strings.Contains(name, "access") || strings.Contains(strings.ToLower(m.line), "aws"))
		},
	},
	{
		// RFC 6750 and RFC 7617 headers kept in configuration.
		id: "authorization-header", ours: true, settings: map[string]bool{"authorization": true}, typ: remit.StaticToken, group: 2, keywords: []string{"authorization"}, entropy: 3,
		re: regexp.MustCompile(`(?i)authorization['"]?[ \t]{0,4}[:=][ \t]{0,4}['"]?(bearer|basic|token)[ \t]+([\w.~+/=-]{12,})`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			if strings.EqualFold(m.groups[1], "basic") {
				return remit.Password, "", true
			}
			return remit.StaticToken, "", true
		},
	},
	{
		// A password behind its key in a file of settings.
		id: configPasswordRule, ours: true, settings: map[string]bool{"password": true, "passwd": true, "passphrase": true}, typ: remit.Password, group: 2, keywords: []string{"password", "passwd", "passphrase"},
		re: regexp.MustCompile(`(?im)(?:^|[{,\s])[ \t]{0,64}['"]?([\w.-]{0,64}(?:password|passwd|passphrase))['"]?[ \t]{0,8}[:=][ \t]{0,8}['"]?([^\s'"#]{6,128})['"]?[ \t]*(?:,|}|#|$)`),
		judge: func(m match) (remit.CredentialType, string, bool) {
			_, ok := nameType(m.groups[1])
			return remit.Password, "", ok && passwordLike(m.secret)
		},
	},
}

const (
	genericRule        = "generic-api-key"
	configPasswordRule = "config-password"
	awsKeyRule         = "aws-access-token"
	awsSecretRule      = "aws-secret-access-key"
)

var (
	connection  = regexp.MustCompile(`(?i)\b(?:host|hostaddr|server|data source|addr|address|dbname|database|initial catalog|user id|uid|user)[ \t]{0,4}=|jdbc:`)
	hexadecimal = regexp.MustCompile(`^[0-9a-fA-F]+$`)
)
