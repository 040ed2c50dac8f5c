/*
 * schema_compile.h
 *		The parts of the compiler of JSON schemas.
 *
 * A schema that is not valid is reported softly: schema_fail() keeps the first thing found, and
 * what is compiled from then on is thrown away.
 */
#ifndef BEHAVIOR_SCHEMA_COMPILE_H
#define BEHAVIOR_SCHEMA_COMPILE_H

#include "utils/hsearch.h"

#include "gate/schema_node.h"

/* An object of the text that is a schema. */
typedef struct SchemaLocation
{
	const char *data; /* its container: the key */
	SchemaResource *resource;
	const SchemaPlace *place;
	SchemaNode *node; /* once compiled */
} SchemaLocation;

typedef struct SchemaReference
{
	SchemaNode *node;
	const char *text;
	bool dynamic;
	const SchemaPlace *place;
	struct SchemaReference *next;
} SchemaReference;

/* Something that a pointer leads to where no keyword has a schema. */
typedef struct SchemaTarget
{
	JsonSlot slot;
	const SchemaPlace *place;
	struct SchemaTarget *next;
} SchemaTarget;

typedef struct SchemaCompiler
{
	JsonSchema *schema;
	HTAB *locations;
	SchemaReference *references; /* not yet resolved */
	SchemaTarget *targets;		 /* to be checked against the metaschema */
	int options;
	int nesting;
	bool failed;
	const char *message;
	const SchemaPlace *place; /* where */
} SchemaCompiler;

/* What the value of a keyword holds. */
typedef enum SchemaShape
{
	SHAPE_NONE,				   /* no schemas */
	SHAPE_SCHEMA,			   /* one */
	SHAPE_LIST,				   /* an array of them */
	SHAPE_MAP,				   /* an object of them */
	SHAPE_SCHEMA_OR_LIST,	   /* one or an array */
	SHAPE_SCHEMA_OR_NAMES_MAP, /* an object of schemas and of arrays of names */
} SchemaShape;

typedef void (*SchemaKeywordCompiler)(SchemaCompiler *compiler, SchemaNode *node,
									  const JsonSlot *value, const SchemaPlace *place);

typedef struct SchemaKeyword
{
	const char *name;
	int drafts;
	SchemaShape shape;
	SchemaKeywordCompiler compile; /* NULL: a remark */
} SchemaKeyword;

/* schema_keyword.c */
extern const SchemaKeyword *schema_keyword(const char *name, int length, SchemaDraft draft);

/* schema_resource.c */
extern SchemaResource *schema_add_document(SchemaCompiler *compiler, const JsonSlot *root,
										   const char *uri, const char *origin, SchemaDraft draft);
extern void schema_scan(SchemaCompiler *compiler, const JsonSlot *slot, SchemaResource *resource,
						const SchemaPlace *place);
extern SchemaLocation *schema_location(SchemaCompiler *compiler, const JsonSlot *slot);
extern SchemaNode *
schema_resolve(SchemaCompiler *compiler, const SchemaResource *resource, const char *reference,
			   const SchemaPlace *place, const SchemaAnchor **anchor);
extern const SchemaPlace *
schema_place_member(const SchemaPlace *parent, const char *token, int length);
extern const SchemaPlace *schema_place_element(const SchemaPlace *parent, int index);

/* schema_compile.c */
extern SchemaDraft schema_draft(const char *uri, int length);
extern void schema_fail(SchemaCompiler *compiler, const SchemaPlace *place, const char *format, ...)
	pg_attribute_printf(3, 4);
extern SchemaNode *schema_compile_node(SchemaCompiler *compiler, const JsonSlot *slot,
									   SchemaResource *resource, const SchemaPlace *place);

#endif
