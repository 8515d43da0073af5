// Values of form fields, or a problem that names the field as the page does.

const nameOf = (field) => field.labels[0].textContent.trim();

export function filled(field) {
  const value = field.value.trim();
  if (value) return value;
  throw { message: `“${nameOf(field)}” is empty.`, remedy: "Fill it in.", field };
}

// The number in a field that may be left empty, or null.
export function decimal(field) {
  if (field.validity.valid) return field.value ? field.valueAsNumber : null;
  throw { message: `“${nameOf(field)}” takes a number from ${field.min} on.`, remedy: "Correct it, or leave it empty.", field };
}

export function wholeNumber(field) {
  if (field.value && field.validity.valid) return field.valueAsNumber;
  throw { message: `“${nameOf(field)}” takes a whole number from ${field.min} to ${field.max}.`, remedy: "Correct it.", field };
}
