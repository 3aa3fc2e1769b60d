package main

import (
	"cmp"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/anthropic"
	"remit/connector/aws"
	"remit/connector/github"
	"remit/connector/okta"
	"remit/connector/openai"
)

// pollConfig is a system that is asked for its events. Which fields count depends
// on the source; docs/reference/configuration.md lists them.
type pollConfig struct {
	Name   string `yaml:"name"`
	Source string `yaml:"source"`
	Every  span   `yaml:"every"`
	Since  span   `yaml:"since"` // how far back the first time

	Organization string `yaml:"organization"`
	Enterprise   string `yaml:"enterprise"`
	URL          string `yaml:"url"`
	TokenFile    string `yaml:"token_file"`
	TokenScheme  string `yaml:"token_scheme"`
	LookBack     span   `yaml:"look_back"`

	Bucket          string   `yaml:"bucket"`
	Prefix          string   `yaml:"prefix"`
	Region          string   `yaml:"region"`
	Accounts        []string `yaml:"accounts"`
	Regions         []string `yaml:"regions"`
	CredentialsFile string   `yaml:"credentials_file"`
	Profile         string   `yaml:"profile"`
}

// Defaults of a poll.
const (
	pollSince     = 24 * time.Hour
	pollEvery     = time.Minute
	pollEveryFile = 2 * time.Minute // CloudTrail delivers every five minutes or so
)

// poller makes what asks.
func (p *pollConfig) poller() (connector.Poller, error) {
	lookBack := time.Duration(p.LookBack)
	switch p.Source {
	case "github":
		return github.NewPoller(github.PollerOptions{
			Organization: p.Organization, Enterprise: p.Enterprise, TokenFile: p.TokenFile, BaseURL: p.URL, LookBack: lookBack,
		})
	case "okta":
		return okta.NewPoller(okta.PollerOptions{URL: p.URL, TokenFile: p.TokenFile, Scheme: p.TokenScheme})
	case "openai":
		return openai.NewPoller(openai.PollerOptions{Organization: p.Organization, TokenFile: p.TokenFile, BaseURL: p.URL, LookBack: lookBack})
	case "anthropic":
		return anthropic.NewPoller(anthropic.PollerOptions{Organization: p.Organization, TokenFile: p.TokenFile, BaseURL: p.URL, LookBack: lookBack})
	case "aws-cloudtrail":
		return aws.NewPoller(aws.PollerOptions{
			Bucket: p.Bucket, Prefix: p.Prefix, Organization: p.Organization, Accounts: p.Accounts, Regions: p.Regions,
			Region: p.Region, Endpoint: p.URL, CredentialsFile: p.CredentialsFile, Profile: p.Profile, LookBack: lookBack,
		})
	}
	return nil, remit.Errorf(remit.Invalid, "", "%q cannot be asked for events: use github, okta, openai, anthropic or aws-cloudtrail", p.Source)
}

// eventsTell says whether the events name their system themselves: a trail's or
// an enterprise's are of many.
func (p *pollConfig) eventsTell() bool { return p.Source == "github" || p.Source == "aws-cloudtrail" }

func (p *pollConfig) every() time.Duration {
	usual := pollEvery
	if p.Bucket != "" {
		usual = pollEveryFile
	}
	return cmp.Or(time.Duration(p.Every), usual)
}
