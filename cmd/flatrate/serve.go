package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/limits"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/valkey-io/valkey-go"
)

// tokenVariable holds the API token. There is no flag for it: command lines can be read by others.
const tokenVariable = "FLATRATE_API_TOKEN" //nolint:gosec // the name, not the token

// serveFlags are also the keys of the configuration file.
type serveFlags struct {
	Config string `placeholder:"FILE" help:"A YAML file whose keys are the names of these flags. Flags and the environment win over it."`

	Limits     string   `placeholder:"FILE" help:"The plans, see docs/ratelimit-plans.md. Loaded again when it changes, and on SIGHUP."`
	EnvoyRules []string `placeholder:"FILE,..." help:"Domains and descriptors in the format of envoyproxy/ratelimit: files, or folders of files."`
	Prefix     string   `default:"fr" help:"What stands before every key."`

	ListenHTTP string `name:"listen-http" default:"127.0.0.1:8080" placeholder:"ADDR" help:"Where HTTP is served; off for nowhere."`
	ListenRLS  string `name:"listen-rls" default:"127.0.0.1:8081" placeholder:"ADDR" help:"Where Envoy's rate-limit service is served over gRPC; off for nowhere."`

	TLSCert              string `name:"tls-cert" placeholder:"FILE" help:"The certificate, in PEM. Loaded again when it changes, and on SIGHUP."`
	TLSKey               string `name:"tls-key" placeholder:"FILE" help:"Its key."`
	TLSClientCA          string `name:"tls-client-ca" placeholder:"FILE" help:"The authorities whose client certificates are accepted."`
	APITokenFile         string `placeholder:"FILE" help:"A file with the token that callers have to show. FLATRATE_API_TOKEN can hold it in place of a file."`
	InsecureTrustNetwork bool   `help:"Let everyone in who can reach an address that is not loopback."`

	AuthPlan       []string `placeholder:"PLAN,..." help:"The plans of /v1/ratelimit/auth where a request does not name one."`
	AuthKey        []string `default:"address" placeholder:"KEY,..." help:"Whom its requests count for, the first that there is: address, header:NAME, or several joined by +."`
	AuthDeny       int      `default:"429" help:"The status of its denials: 429, or 403 for nginx."`
	TrustedProxies []string `placeholder:"CIDR,..." help:"Gateways whose word on a client's address is taken. Default: this machine."`
	AddressHeader  string   `default:"X-Forwarded-For" placeholder:"NAME" help:"Where they write it."`

	AuthHeaders string `enum:"all,x,ietf,none" default:"all" help:"Which headers its answers have beside Retry-After: all, x, ietf or none."`
	RLSHeaders  string `name:"rls-headers" enum:"all,x,ietf,none" default:"none" help:"Which headers Envoy adds to responses beside Retry-After: all, x, ietf or none."`

	RLSTimeout time.Duration `name:"rls-timeout" default:"40ms" help:"How long a decision about a rule with a rate_limit may take; plans have a timeout of their own."`

	ShutdownTimeout time.Duration `default:"10s" help:"How long requests may take to finish after SIGTERM."`
	MaxConnections  int           `default:"4096" placeholder:"N" help:"How many each address holds; further ones are closed at once."`
	Log             string        `enum:"text,json" default:"text" help:"text or json, to standard error."`
	LogLevel        string        `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
}

type serveCmd struct{ serveFlags }

// Run serves until SIGTERM or Ctrl-C.
func (c *serveCmd) Run(ctx context.Context, g globals, io stdio) error {
	if g.Valkey == "" {
		return usagef("serve needs --valkey URL: limits that no other process shares are better kept in the program itself")
	}
	log := c.logger(io.err)
	cfg, err := c.config(log)
	if err != nil {
		return err
	}
	cfg.Connect = func(ctx context.Context) (valkey.Client, error) {
		client, err := connect(ctx, g.Valkey)
		for _, permanent := range []error{flatrate.ErrURL, flatrate.ErrAuth, flatrate.ErrTooOld} {
			if errors.Is(err, permanent) {
				err = fmt.Errorf("%w%w", err, noText{ratelimitd.ErrPermanent})
			}
		}
		return client, err
	}
	server, err := ratelimitd.Open(ctx, cfg)
	if err != nil {
		return err
	}
	http, rls := server.Addr()
	log.Info("listening", "version", version(), "http", fmt.Sprint(http), "rls", fmt.Sprint(rls))
	if cfg.TrustNetwork {
		log.Warn("insecure-trust-network is set: whoever reaches these addresses may use up any limit")
	}
	if cfg.Token != "" && cfg.CertFile == "" {
		log.Warn("the API token travels unencrypted: there is no tls-cert")
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case <-hup:
				log.Info("SIGHUP: the files are loaded again")
				server.Reload()
			case <-ended:
				return
			}
		}
	}()
	return server.Run(ctx)
}

// noText is an error that can be found and does not speak.
type noText struct{ error }

func (noText) Error() string   { return "" }
func (e noText) Unwrap() error { return e.error }

func (f *serveFlags) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // one of the enum
	options := &slog.HandlerOptions{Level: level}
	if f.Log == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// config is the flags as the server has them. The error says all that is wrong with them.
func (f *serveFlags) config(log *slog.Logger) (ratelimitd.Config, error) {
	address := func(addr string) string {
		if addr == "off" {
			return ""
		}
		return addr
	}
	headers := map[string]ratehttp.Headers{"all": ratehttp.HeadersAll, "x": ratehttp.HeadersX, "ietf": ratehttp.HeadersIETF, "none": ratehttp.HeadersNone}
	cfg := ratelimitd.Config{
		ListenHTTP: address(f.ListenHTTP), ListenRLS: address(f.ListenRLS), EnvoyFiles: f.EnvoyRules, Prefix: f.Prefix,
		CertFile: f.TLSCert, KeyFile: f.TLSKey, ClientCAFile: f.TLSClientCA, TrustNetwork: f.InsecureTrustNetwork,
		Auth: ratelimitd.AuthConfig{Plans: f.AuthPlan, Keys: f.AuthKey, Trusted: f.TrustedProxies, Header: f.AddressHeader,
			Deny: f.AuthDeny, Headers: headers[f.AuthHeaders]},
		RLSHeaders: headers[f.RLSHeaders], RuleTimeout: f.RLSTimeout, Shutdown: f.ShutdownTimeout, Connections: f.MaxConnections, Logger: log, Version: version(),
	}
	var err, errPlans error
	if cfg.Token, err = f.token(); err != nil {
		return cfg, err
	}
	if f.Limits == "" && len(f.EnvoyRules) == 0 {
		return cfg, usagef("neither limits nor envoy-rules: there is nothing to limit")
	}
	if f.Limits != "" {
		cfg.PlanNames, errPlans = planNames(f.Limits, log)
		cfg.OpenPlans = func(client valkey.Client, hooks ratelimit.Hooks, reloaded func(ok bool)) (ratelimitd.Plans, error) {
			return limits.Open(f.Limits, limits.Config{
				Client: client, Prefix: f.Prefix, Limiters: hooks, Logger: log,
				Changed: func([]string) { reloaded(true) }, Failed: func(error) { reloaded(false) },
			})
		}
	}
	if errPlans != nil { // names are unknown then
		return cfg, errPlans
	}
	return cfg, ratelimitd.Check(cfg)
}

// planNames are the plans of a file that can be used over a network.
func planNames(path string, log *slog.Logger) ([]string, error) {
	data, err := yamlfile.Read(path)
	if err != nil {
		return nil, err
	}
	plans, err := limits.Parse(path, data)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(plans))
	return slices.DeleteFunc(names, func(name string) bool {
		unfit := slices.ContainsFunc(plans[name].Limits, func(l ratelimit.Limit) bool { return l.Algorithm == ratelimit.Concurrency })
		if unfit {
			log.Warn("the plan can't be asked here: it has a concurrency limit, whose places could not be given up", "plan", name)
		}
		return unfit
	}), nil
}

func (f *serveFlags) token() (string, error) {
	token := os.Getenv(tokenVariable)
	if f.APITokenFile == "" {
		return token, nil
	}
	if token != "" {
		return "", usagef("both api-token-file and %s are set", tokenVariable)
	}
	data, err := yamlfile.Read(f.APITokenFile)
	if err != nil {
		return "", fmt.Errorf("api-token-file: %w", err)
	}
	if token = strings.TrimSpace(string(data)); token == "" {
		return "", fmt.Errorf("api-token-file: %s is empty", f.APITokenFile)
	}
	return token, nil
}

type configCmd struct {
	Validate validateCmd `cmd:"" help:"Say whether serve would start with these flags, and what is wrong otherwise."`
}

type validateCmd struct{ serveFlags }

// Run checks everything but what only a running server can tell: the Valkey server, and whether addresses are free.
func (c *validateCmd) Run(g globals, io stdio) error {
	if _, err := c.config(c.logger(io.err)); err != nil {
		return err
	}
	if g.Valkey == "" {
		io.warn("no valkey URL here: serve needs one")
	}
	_, err := fmt.Fprintln(io.out, "ok")
	return err
}
