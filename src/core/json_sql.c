/*
 * json_sql.c
 *		The tests' way to the JSON parser.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "core/json.h"

PG_FUNCTION_INFO_V1(behavior__json_parse);
PG_FUNCTION_INFO_V1(behavior__json_refusal);
PG_FUNCTION_INFO_V1(behavior__json_merge_patch);

/* Parses all of a text; NULL, with what is wrong in *reason and *message, when it is refused. */
static JsonNode *
parse_whole(text *input, Reason *reason, char **message)
{
	const char *data = VARDATA_ANY(input);
	size_t length = VARSIZE_ANY_EXHDR(input);
	size_t offset = 0;
	JsonError error;
	JsonNode *node = json_parse(data, length, &offset, &error);

	if (node == NULL)
	{
		*reason = error.reason;
		*message = pstrdup(error.message);
	}
	else if (offset < length)
	{
		*reason = REASON_MALFORMED_JSON;
		*message = psprintf("more text at byte %zu", offset + 1);
	}
	else if (node->flaw != NULL)
	{
		*reason = node->flaw->reason;
		*message = pstrdup(node->flaw->message);
	}
	else
		return node;
	return NULL;
}

/* behavior._json_parse(text): jsonb, NULL where it is refused. */
Datum
behavior__json_parse(PG_FUNCTION_ARGS)
{
	Reason reason;
	char *message;
	JsonNode *node = parse_whole(PG_GETARG_TEXT_PP(0), &reason, &message);
	Jsonb *result = node == NULL ? NULL : json_to_jsonb(node);

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* behavior._json_refusal(text): reason and message, NULL where it is accepted. */
Datum
behavior__json_refusal(PG_FUNCTION_ARGS)
{
	Reason reason;
	char *message;

	if (parse_whole(PG_GETARG_TEXT_PP(0), &reason, &message) != NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s: %s", reason_name(reason), message)));
}

/* behavior._json_merge_patch(text, jsonb): the text with the patch applied; NULL where it is no
 * JSON.
 */
Datum
behavior__json_merge_patch(PG_FUNCTION_ARGS)
{
	text *input = PG_GETARG_TEXT_PP(0);
	const char *data = VARDATA_ANY(input);
	size_t offset = 0;
	JsonError error;
	JsonNode *node = json_parse(data, VARSIZE_ANY_EXHDR(input), &offset, &error);
	const char *patch_text;
	JsonNode *patch = json_of_jsonb(PG_GETARG_JSONB_P(1), &patch_text);
	StringInfoData out;

	if (node == NULL || offset < VARSIZE_ANY_EXHDR(input))
		PG_RETURN_NULL();
	initStringInfo(&out);
	json_merge_patch(&out, data, node, patch_text, patch);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
