package main

import (
	"os"

	"remit"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/connector/secret"
)

// connectKubernetes connects to the cluster of a system, or reads files in its
// place.
func connectKubernetes(s systemConfig, from []string, c *config, key []byte) (connector.Watcher, error) {
	fingerprinter, err := secret.NewFingerprinter(key)
	if err != nil {
		return nil, err
	}
	rules, err := readAgentRules(c.Agents)
	if err != nil {
		return nil, err
	}
	options := kubernetes.Config{
		Kubeconfig:            s.Kubeconfig,
		Context:               s.Context,
		Name:                  s.Name,
		Secrets:               kubernetes.SecretsMode(s.Secrets),
		OwnerKeys:             c.Owners,
		EnvironmentKeys:       c.Environments,
		AgentRules:            rules,
		ExtendTokenExpiration: s.ExtendTokenExpiration,
		Fingerprint:           fingerprinter.Fingerprint,
	}
	if len(from) > 0 {
		return kubernetes.OpenFiles(from, options)
	}
	return kubernetes.Open(options)
}

func readAgentRules(paths []string) ([]kubernetes.AgentRule, error) {
	var all []kubernetes.AgentRule
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, remit.Errorf(remit.Invalid, "read agent rules", "%w", err)
		}
		rules, err := kubernetes.ParseAgentRules(path, file)
		file.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, rules...)
	}
	return all, nil
}
