package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// object is the attributes and blocks of a resource or a block.
type object struct {
	attributes map[string]*tfprotov6.SchemaAttribute
	blocks     map[string]*tfprotov6.SchemaNestedBlock
}

var (
	class      = regexp.MustCompile(`(?s)\n    synthesizeHclAttributes\(\) \{\n        const attrs = \{\n(.*?)\n        \};`)
	function   = regexp.MustCompile(`(?s)^(\w+)ToHclTerraform\(struct\) \{.*?\n    const attrs = \{\n(.*?)\n    \};`)
	property   = regexp.MustCompile(`(?s)(\w+): \{\s+value: (.*?),\s+isBlock: (true|false),\s+type: "(\w+)",\s+storageClassType: "(\w+)",\s+\}`)
	nested     = regexp.MustCompile(`(\w+)ToHclTerraform`)
	computed   = regexp.MustCompile(`\n    // (\w+) - computed: true, optional: (true|false), required: false`)
	getter     = regexp.MustCompile(`this\.get(String|Number|Boolean|List|StringMap)Attribute\('(\w+)'\)`)
	interfaces = regexp.MustCompile(`(?s)\nexport interface (\w+) (?:extends [\w.]+ )?\{\n(.*?)\n\}`)
	member     = regexp.MustCompile(`(?s)\{@link \S+?#(\w+) [^}]*\}\s*(?:\*\s*)*\*/\s*readonly \w+(\??):`)
)

// types of what cdktf calls the storage class.
func typeOf(kind, storage string) tftypes.Type {
	element := map[string]tftypes.Type{"string": tftypes.String, "stringList": tftypes.String, "stringMap": tftypes.String, "number": tftypes.Number,
		"numberList": tftypes.Number, "boolean": tftypes.Bool}[storage]
	switch {
	case element == nil:
		return tftypes.DynamicPseudoType
	case kind == "list":
		return tftypes.List{ElementType: element}
	case kind == "set":
		return tftypes.Set{ElementType: element}
	case kind == "map":
		return tftypes.Map{ElementType: element}
	}
	return element
}

// read is the schema of one resource, "elasticache-user" say.
func read(dir, name string) (*tfprotov6.Schema, error) {
	js, err := os.ReadFile(filepath.Join(dir, "cdktf", "lib", name, "index.js")) //nolint:gosec // the operator names the folder
	if err != nil {
		return nil, err
	}
	declared, err := os.ReadFile(filepath.Join(dir, "cdktf", "lib", name, "index.d.ts")) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	required := map[string]map[string]bool{}
	config := ""
	for _, m := range interfaces.FindAllStringSubmatch(string(declared), -1) {
		required[strings.ToLower(m[1])] = map[string]bool{}
		if strings.HasSuffix(m[1], "Config") && config == "" {
			config = strings.ToLower(m[1])
		}
		for _, p := range member.FindAllStringSubmatch(m[2], -1) {
			required[strings.ToLower(m[1])][p[1]] = p[2] == ""
		}
	}
	functions := map[string]string{}
	for part := range strings.SplitSeq(string(js), "\nfunction ") {
		if m := function.FindStringSubmatch(part); m != nil {
			functions[strings.ToLower(m[1])] = m[2]
		}
	}
	top := class.FindStringSubmatch(string(js))
	body := ""
	if top != nil {
		body = top[1]
	}
	o, err := objectOf(body, config, functions, required, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	o.computed(string(js))
	return &tfprotov6.Schema{Block: o.block()}, nil
}

func objectOf(body, name string, functions map[string]string, required map[string]map[string]bool, depth int) (object, error) {
	o := object{map[string]*tfprotov6.SchemaAttribute{}, map[string]*tfprotov6.SchemaNestedBlock{}}
	if depth > 8 {
		return o, fmt.Errorf("%s: too deep", name)
	}
	if required[name] == nil {
		return o, fmt.Errorf("%s is not declared", name)
	}
	for _, m := range property.FindAllStringSubmatch(body, -1) {
		attribute, value, isBlock := m[1], m[2], m[3] == "true"
		if !isBlock {
			must := required[name][attribute]
			o.attributes[attribute] = &tfprotov6.SchemaAttribute{Name: attribute, Type: typeOf(m[4], m[5]), Required: must, Optional: !must}
			continue
		}
		if attribute == "timeouts" {
			continue
		}
		of := nested.FindStringSubmatch(value)
		if of == nil {
			return o, fmt.Errorf("%s.%s: no block: %s", name, attribute, value)
		}
		inner, err := objectOf(functions[strings.ToLower(of[1])], strings.ToLower(of[1]), functions, required, depth+1)
		if err != nil {
			return o, err
		}
		nesting := tfprotov6.SchemaNestedBlockNestingModeList
		if m[4] == "set" {
			nesting = tfprotov6.SchemaNestedBlockNestingModeSet
		}
		block := &tfprotov6.SchemaNestedBlock{TypeName: attribute, Block: inner.block(), Nesting: nesting}
		if required[name][attribute] {
			block.MinItems = 1
		}
		o.blocks[attribute] = block
	}
	return o, nil
}

// computed adds what AWS says of the resource. Objects among it are taken as they come.
func (o object) computed(js string) {
	top := js[strings.LastIndex(js, "\nclass "):] // that of the resource is the last one
	kinds := map[string]tftypes.Type{"String": tftypes.String, "Number": tftypes.Number, "Boolean": tftypes.Bool, "List": tftypes.List{ElementType: tftypes.String},
		"StringMap": tftypes.Map{ElementType: tftypes.String}}
	types := map[string]tftypes.Type{}
	for _, m := range getter.FindAllStringSubmatch(top, -1) {
		types[m[2]] = kinds[m[1]]
	}
	for _, m := range computed.FindAllStringSubmatch(top, -1) {
		switch a := o.attributes[m[1]]; {
		case a != nil:
			a.Computed = !a.Required
		case o.blocks[m[1]] == nil:
			kind := types[m[1]]
			if kind == nil {
				kind = tftypes.DynamicPseudoType
			}
			o.attributes[m[1]] = &tfprotov6.SchemaAttribute{Name: m[1], Type: kind, Computed: true}
		}
	}
	for _, m := range regexp.MustCompile(`\n        // (\w+) - computed: true, optional: false, required: false`).FindAllStringSubmatch(top, -1) {
		if o.attributes[m[1]] == nil && o.blocks[m[1]] == nil { // lists of objects
			o.attributes[m[1]] = &tfprotov6.SchemaAttribute{Name: m[1], Type: tftypes.DynamicPseudoType, Computed: true}
		}
	}
}

func (o object) block() *tfprotov6.SchemaBlock {
	b := &tfprotov6.SchemaBlock{}
	for _, a := range o.attributes {
		b.Attributes = append(b.Attributes, a)
	}
	for _, n := range o.blocks {
		b.BlockTypes = append(b.BlockTypes, n)
	}
	return b
}

// younger adds what the later package has and the earlier one has not.
func younger(dir, file, camel string, a *tfprotov6.SchemaAttribute, s *tfprotov6.Schema) error {
	text, err := os.ReadFile(filepath.Join(dir, "pulumi", "elasticache", file)) //nolint:gosec // as above
	if err != nil {
		return err
	}
	if !regexp.MustCompile(`\n    ` + camel + `\?: pulumi\.Input<`).Match(text) {
		return fmt.Errorf("%s has no %s", file, camel)
	}
	s.Block.Attributes = append(s.Block.Attributes, a)
	return nil
}
