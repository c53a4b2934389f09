package main

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
)

const configVariable = "FLATRATE_CONFIG"

// BeforeResolve reads the file that --config names: what stands in it holds where neither the command line nor the
// environment says otherwise.
func (f *serveFlags) BeforeResolve(ctx *kong.Context) error {
	flags := map[string]*kong.Flag{}
	path := ""
	for _, flag := range ctx.Flags() {
		switch flag.Name {
		case "help":
		case "config":
			if text, ok := ctx.FlagValue(flag).(string); ok {
				path = text
			}
		default:
			flags[flag.Name] = flag
		}
	}
	if path == "" {
		path = os.Getenv(configVariable)
	}
	if path == "" {
		return nil
	}
	values, err := readConfig(path, flags)
	if err != nil {
		return err
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if _, set := os.LookupEnv(name); set {
				return nil, nil
			}
		}
		if text, ok := values[flag.Name]; ok {
			return text, nil
		}
		return nil, nil
	}))
	return nil
}

// readConfig returns the values of a file as they would stand on a command line.
func readConfig(path string, flags map[string]*kong.Flag) (map[string]string, error) {
	data, err := yamlfile.Read(path)
	if err != nil {
		return nil, err
	}
	doc, root, err := yamlfile.Parse(path, data)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	m, _ := root.Keys(slices.Sorted(maps.Keys(flags))...)
	for key := range m.All {
		value, ok := m.Get(key.Name())
		flag := flags[key.Name()]
		if !ok || flag == nil {
			continue
		}
		if !flag.IsSlice() {
			values[key.Name()] = scalar(value)
			continue
		}
		var list []string
		for _, v := range value.List() {
			text := scalar(v)
			if strings.ContainsAny(text, `,\`) {
				v.Fail("a comma or a backslash in %q", text)
			}
			list = append(list, text)
		}
		values[key.Name()] = strings.Join(list, ",")
	}
	return values, doc.Err()
}

// scalar is a number, a truth value or a text as it is written.
func scalar(v yamlfile.Value) string {
	if text := v.Plain(); text != "" {
		return text
	}
	return v.Text()
}
