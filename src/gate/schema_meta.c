/*
 * schema_meta.c
 *		The metaschemas: what a schema of draft 7 and of 2020-12 looks like, as schemas.
 *
 * That of 2020-12 is one document for each vocabulary; they refer to each other by $dynamicRef as
 * the specification has it, so that a schema may extend them.
 */
#include "postgres.h"

#include "gate/schema_node.h"

#define DRAFT_2020_12 "https://json-schema.org/draft/2020-12/"

/* Opens a document of 2020-12. */
#define OPEN(name, types)                                                                          \
	"{\"$schema\":\"" DRAFT_2020_12 "schema\",\"$id\":\"" DRAFT_2020_12 name                       \
	"\",\"$dynamicAnchor\":\"meta\",\"type\":" types ","
#define OBJECT_OR_BOOLEAN "[\"object\",\"boolean\"]"
#define ANY_SCHEMA		  "{\"$dynamicRef\":\"#meta\"}"
#define SCHEMA_MAP		  "{\"type\":\"object\",\"additionalProperties\":" ANY_SCHEMA ",\"default\":{}}"
#define NAMES                                                                                      \
	"{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true,\"default\":[]}"
#define TEXT   "{\"type\":\"string\"}"
#define FLAG   "{\"type\":\"boolean\",\"default\":false}"
#define NUMBER "{\"type\":\"number\"}"
#define TYPE_NAMES                                                                                 \
	"\"enum\":[\"array\",\"boolean\",\"integer\",\"null\",\"number\",\"object\",\"string\"]"

static const struct
{
	const char *uri;
	const char *text;
} documents[] = {
	{DRAFT_2020_12 "schema",
	 OPEN(
		 "schema",
		 OBJECT_OR_BOOLEAN) "\"$vocabulary\":{\"" DRAFT_2020_12 "vocab/core\":true,"
							"\"" DRAFT_2020_12 "vocab/applicator\":true,\"" DRAFT_2020_12
							"vocab/unevaluated\":true,"
							"\"" DRAFT_2020_12 "vocab/validation\":true,\"" DRAFT_2020_12
							"vocab/meta-data\":true,"
							"\"" DRAFT_2020_12 "vocab/format-annotation\":true,\"" DRAFT_2020_12
							"vocab/content\":true},"
							"\"allOf\":[{\"$ref\":\"meta/core\"},{\"$ref\":\"meta/applicator\"},"
							"{\"$ref\":\"meta/unevaluated\"},{\"$ref\":\"meta/validation\"},"
							"{\"$ref\":\"meta/meta-data\"},{\"$ref\":\"meta/format-annotation\"},"
							"{\"$ref\":\"meta/content\"}],"
							"\"properties\":{\"definitions\":" SCHEMA_MAP ","
							"\"dependencies\":{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":[" ANY_SCHEMA
							","
							"{\"$ref\":\"meta/validation#/$defs/stringArray\"}]},\"deprecated\":true,\"default\":{}},"
							"\"$recursiveAnchor\":{\"$ref\":\"meta/core#/$defs/anchorString\",\"deprecated\":true},"
							"\"$recursiveRef\":{\"$ref\":\"meta/core#/$defs/uriReferenceString\",\"deprecated\":true}}}"},

	{DRAFT_2020_12 "meta/core",
	 OPEN(
		 "meta/core",
		 OBJECT_OR_BOOLEAN) "\"properties\":{"
							"\"$id\":{\"$ref\":\"#/$defs/uriReferenceString\",\"pattern\":\"^[^#]*#?$\"},"
							"\"$schema\":{\"$ref\":\"#/$defs/uriString\"},"
							"\"$ref\":{\"$ref\":\"#/$defs/uriReferenceString\"},"
							"\"$anchor\":{\"$ref\":\"#/$defs/anchorString\"},"
							"\"$dynamicRef\":{\"$ref\":\"#/$defs/uriReferenceString\"},"
							"\"$dynamicAnchor\":{\"$ref\":\"#/$defs/anchorString\"},"
							"\"$vocabulary\":{\"type\":\"object\",\"propertyNames\":{\"$ref\":\"#/$defs/uriString\"},"
							"\"additionalProperties\":{\"type\":\"boolean\"}},"
							"\"$comment\":" TEXT
							",\"$defs\":{\"type\":\"object\",\"additionalProperties\":" ANY_SCHEMA
							"}},"
							"\"$defs\":{\"anchorString\":{\"type\":\"string\",\"pattern\":\"^[A-Za-z_][-A-Za-z0-9._]*$\"},"
							"\"uriString\":{\"type\":\"string\",\"format\":\"uri\"},"
							"\"uriReferenceString\":{\"type\":\"string\",\"format\":\"uri-reference\"}}}"},

	{DRAFT_2020_12 "meta/applicator",
	 OPEN(
		 "meta/applicator",
		 OBJECT_OR_BOOLEAN) "\"properties\":{"
							"\"prefixItems\":{\"$ref\":\"#/$defs/schemaArray\"},\"items\":" ANY_SCHEMA
							","
							"\"contains\":" ANY_SCHEMA ",\"additionalProperties\":" ANY_SCHEMA ","
							"\"properties\":" SCHEMA_MAP ","
							"\"patternProperties\":{\"type\":\"object\",\"additionalProperties\":" ANY_SCHEMA
							","
							"\"propertyNames\":{\"format\":\"regex\"},\"default\":{}},"
							"\"dependentSchemas\":" SCHEMA_MAP ",\"propertyNames\":" ANY_SCHEMA ","
							"\"if\":" ANY_SCHEMA ",\"then\":" ANY_SCHEMA ",\"else\":" ANY_SCHEMA ","
							"\"allOf\":{\"$ref\":\"#/$defs/schemaArray\"},\"anyOf\":{\"$ref\":\"#/$defs/schemaArray\"},"
							"\"oneOf\":{\"$ref\":\"#/$defs/schemaArray\"},\"not\":" ANY_SCHEMA "},"
							"\"$defs\":{\"schemaArray\":{\"type\":\"array\",\"minItems\":1,\"items\":" ANY_SCHEMA
							"}}}"},

	{DRAFT_2020_12 "meta/unevaluated",
	 OPEN("meta/unevaluated", OBJECT_OR_BOOLEAN) "\"properties\":{"
												 "\"unevaluatedItems\":" ANY_SCHEMA
												 ",\"unevaluatedProperties\":" ANY_SCHEMA "}}"},

	{DRAFT_2020_12 "meta/validation",
	 OPEN(
		 "meta/validation",
		 OBJECT_OR_BOOLEAN) "\"properties\":{"
							"\"type\":{\"anyOf\":[{\"$ref\":\"#/$defs/simpleTypes\"},{\"type\":\"array\","
							"\"items\":{\"$ref\":\"#/$defs/simpleTypes\"},\"minItems\":1,\"uniqueItems\":true}]},"
							"\"const\":true,\"enum\":{\"type\":\"array\",\"items\":true},"
							"\"multipleOf\":{\"type\":\"number\",\"exclusiveMinimum\":0},"
							"\"maximum\":" NUMBER ",\"exclusiveMaximum\":" NUMBER ","
							"\"minimum\":" NUMBER ",\"exclusiveMinimum\":" NUMBER ","
							"\"maxLength\":{\"$ref\":\"#/$defs/nonNegativeInteger\"},"
							"\"minLength\":{\"$ref\":\"#/$defs/nonNegativeIntegerDefault0\"},"
							"\"pattern\":{\"type\":\"string\",\"format\":\"regex\"},"
							"\"maxItems\":{\"$ref\":\"#/$defs/nonNegativeInteger\"},"
							"\"minItems\":{\"$ref\":\"#/$defs/nonNegativeIntegerDefault0\"},\"uniqueItems\":" FLAG
							","
							"\"maxContains\":{\"$ref\":\"#/$defs/nonNegativeInteger\"},"
							"\"minContains\":{\"$ref\":\"#/$defs/nonNegativeInteger\",\"default\":1},"
							"\"maxProperties\":{\"$ref\":\"#/$defs/nonNegativeInteger\"},"
							"\"minProperties\":{\"$ref\":\"#/$defs/nonNegativeIntegerDefault0\"},"
							"\"required\":{\"$ref\":\"#/$defs/stringArray\"},"
							"\"dependentRequired\":{\"type\":\"object\","
							"\"additionalProperties\":{\"$ref\":\"#/$defs/stringArray\"}}},"
							"\"$defs\":{\"nonNegativeInteger\":{\"type\":\"integer\",\"minimum\":0},"
							"\"nonNegativeIntegerDefault0\":{\"$ref\":\"#/$defs/nonNegativeInteger\",\"default\":0},"
							"\"simpleTypes\":{" TYPE_NAMES "},\"stringArray\":" NAMES "}}"},

	{DRAFT_2020_12 "meta/meta-data",
	 OPEN("meta/meta-data",
		  OBJECT_OR_BOOLEAN) "\"properties\":{"
							 "\"title\":" TEXT ",\"description\":" TEXT
							 ",\"default\":true,\"deprecated\":" FLAG ","
							 "\"readOnly\":" FLAG ",\"writeOnly\":" FLAG ","
							 "\"examples\":{\"type\":\"array\",\"items\":true}}}"},

	{DRAFT_2020_12 "meta/format-annotation",
	 OPEN("meta/format-annotation", OBJECT_OR_BOOLEAN) "\"properties\":{\"format\":" TEXT "}}"},

	{DRAFT_2020_12 "meta/format-assertion",
	 OPEN("meta/format-assertion", OBJECT_OR_BOOLEAN) "\"properties\":{\"format\":" TEXT "}}"},

	{DRAFT_2020_12 "meta/content",
	 OPEN("meta/content", OBJECT_OR_BOOLEAN) "\"properties\":{\"contentEncoding\":" TEXT ","
											 "\"contentMediaType\":" TEXT
											 ",\"contentSchema\":" ANY_SCHEMA "}}"},

#undef ANY_SCHEMA
#undef SCHEMA_MAP
#define ANY_SCHEMA "{\"$ref\":\"#\"}"
#define SCHEMA_MAP "{\"type\":\"object\",\"additionalProperties\":" ANY_SCHEMA ",\"default\":{}}"
#define SIZE	   "{\"$ref\":\"#/definitions/nonNegativeInteger\"}"
#define SIZE_0	   "{\"$ref\":\"#/definitions/nonNegativeIntegerDefault0\"}"
#define SCHEMAS	   "{\"$ref\":\"#/definitions/schemaArray\"}"

	{"http://json-schema.org/draft-07/schema",
	 "{\"$schema\":\"http://json-schema.org/draft-07/schema#\","
	 "\"$id\":\"http://json-schema.org/draft-07/schema#\",\"type\":" OBJECT_OR_BOOLEAN ","
	 "\"default\":true,\"definitions\":{"
	 "\"schemaArray\":{\"type\":\"array\",\"minItems\":1,\"items\":" ANY_SCHEMA "},"
	 "\"nonNegativeInteger\":{\"type\":\"integer\",\"minimum\":0},"
	 "\"nonNegativeIntegerDefault0\":{\"allOf\":[" SIZE ",{\"default\":0}]},"
	 "\"simpleTypes\":{" TYPE_NAMES "},\"stringArray\":" NAMES "},"
	 "\"properties\":{\"$id\":{\"type\":\"string\",\"format\":\"uri-reference\"},"
	 "\"$schema\":{\"type\":\"string\",\"format\":\"uri\"},"
	 "\"$ref\":{\"type\":\"string\",\"format\":\"uri-reference\"},\"$comment\":" TEXT ","
	 "\"title\":" TEXT ",\"description\":" TEXT ",\"default\":true,\"readOnly\":" FLAG ","
	 "\"writeOnly\":" FLAG ",\"examples\":{\"type\":\"array\",\"items\":true},"
	 "\"multipleOf\":{\"type\":\"number\",\"exclusiveMinimum\":0},"
	 "\"maximum\":" NUMBER ",\"exclusiveMaximum\":" NUMBER ","
	 "\"minimum\":" NUMBER ",\"exclusiveMinimum\":" NUMBER ","
	 "\"maxLength\":" SIZE ",\"minLength\":" SIZE_0 ","
	 "\"pattern\":{\"type\":\"string\",\"format\":\"regex\"},\"additionalItems\":" ANY_SCHEMA ","
	 "\"items\":{\"anyOf\":[" ANY_SCHEMA "," SCHEMAS "],\"default\":true},"
	 "\"maxItems\":" SIZE ",\"minItems\":" SIZE_0 ",\"uniqueItems\":" FLAG ","
	 "\"contains\":" ANY_SCHEMA ",\"maxProperties\":" SIZE ",\"minProperties\":" SIZE_0 ","
	 "\"required\":{\"$ref\":\"#/definitions/stringArray\"},"
	 "\"additionalProperties\":" ANY_SCHEMA ",\"definitions\":" SCHEMA_MAP ","
	 "\"properties\":" SCHEMA_MAP ","
	 "\"patternProperties\":{\"type\":\"object\",\"additionalProperties\":" ANY_SCHEMA ","
	 "\"propertyNames\":{\"format\":\"regex\"},\"default\":{}},"
	 "\"dependencies\":{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":[" ANY_SCHEMA ","
	 "{\"$ref\":\"#/definitions/stringArray\"}]}},\"propertyNames\":" ANY_SCHEMA ","
	 "\"const\":true,\"enum\":{\"type\":\"array\",\"items\":true},"
	 "\"type\":{\"anyOf\":[{\"$ref\":\"#/definitions/simpleTypes\"},{\"type\":\"array\","
	 "\"items\":{\"$ref\":\"#/definitions/simpleTypes\"},\"minItems\":1,\"uniqueItems\":true}]},"
	 "\"format\":" TEXT ",\"contentMediaType\":" TEXT ",\"contentEncoding\":" TEXT ","
	 "\"if\":" ANY_SCHEMA ",\"then\":" ANY_SCHEMA ",\"else\":" ANY_SCHEMA ","
	 "\"allOf\":" SCHEMAS ",\"anyOf\":" SCHEMAS ",\"oneOf\":" SCHEMAS ",\"not\":" ANY_SCHEMA "}}"},
};

const char *
schema_meta_text(const char *uri)
{
	for (int i = 0; i < lengthof(documents); i++)
	{
		if (strcmp(documents[i].uri, uri) == 0)
			return documents[i].text;
	}
	return NULL;
}
